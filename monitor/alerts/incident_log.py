"""The log lines about incidents that were opened and resolved."""

from __future__ import annotations

import logging

from monitor.alerts.incidents import Changes

__all__ = ["log_changes"]

logger = logging.getLogger("monitor.alerts")

# Incidents of one commit that the log names.
_MOST_LINES = 20


def log_changes(changes: Changes) -> None:
    """Log incidents that were opened and resolved, a few of them by name."""
    for opened in changes.opened[:_MOST_LINES]:
        logger.warning(
            "incident %s opened by rule %s: %s: %s",
            opened.id,
            opened.rule,
            opened.title,
            opened.reason,
        )
    if len(changes.opened) > _MOST_LINES:
        logger.warning("%d more incidents opened", len(changes.opened) - _MOST_LINES)
    for resolved in changes.resolved[:_MOST_LINES]:
        logger.info(
            "incident %s resolved%s", resolved.id, f": {resolved.note}" * bool(resolved.note)
        )
    if len(changes.resolved) > _MOST_LINES:
        logger.info("%d more incidents resolved", len(changes.resolved) - _MOST_LINES)
