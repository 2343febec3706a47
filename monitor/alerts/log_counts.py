"""Counts log entries by sender in sliding windows, for the rules on logs. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from monitor.alerts.conditions import Condition
from monitor.alerts.matching import fits
from monitor.alerts.settings import LogsRule
from monitor.yielding import in_slices

__all__ = ["LEVELS", "LogCounts", "LogLine", "levels_of"]

LEVELS = ("debug", "info", "warning", "error", "critical")
# Senders that are counted at once, for each rule; those that were silent longest go first.
_MOST_SENDERS = 10_000


@dataclass(frozen=True, slots=True)
class LogLine:
    """An entry: its level, when it was received (s since the epoch), sender and message."""

    level: str
    at: float
    sender: str
    message: str


def levels_of(rule: LogsRule) -> tuple[str, ...]:
    """Return the levels that count."""
    return LEVELS[LEVELS.index(rule.min_level) :]


class LogCounts:
    """The newest entries of each sender, as many as the rules need."""

    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], tuple[deque[float], str]] = {}

    def add(self, lines: Iterable[LogLine], rules: Iterable[LogsRule]) -> None:
        """Count entries, in the order in which they came."""
        rules = list(rules)
        for line, rule in in_slices((line, rule) for line in lines for rule in rules):
            sender = rule.match.sender
            if line.level not in levels_of(rule):
                continue
            if sender is not None and not fits(line.sender, sender):
                continue
            key = rule.name, line.sender
            times, _ = self._windows.pop(key, (deque(maxlen=rule.count), ""))
            if times.maxlen != rule.count:
                times = deque(times, rule.count)
            times.append(line.at)
            # The last one is the sender that was heard last.
            self._windows[key] = times, line.message
        while len(self._windows) > _MOST_SENDERS * max(1, len(rules)):
            del self._windows[next(iter(self._windows))]

    def conditions(self, rules: Iterable[LogsRule], *, now: float) -> list[Condition]:
        """Return which senders have too many entries, and forget what is older than a window."""
        by_name = {rule.name: rule for rule in rules}
        found = []
        for key, (times, message) in in_slices(list(self._windows.items())):
            name, sender = key
            rule = by_name.get(name)
            if rule is None or times[-1] <= now - rule.within:
                del self._windows[key]
                continue
            if len(times) < rule.count or times[0] <= now - rule.within:
                continue
            entries = "entry" if rule.count == 1 else "entries"
            found.append(
                Condition(
                    rule=name,
                    watch="logs",
                    subject=sender,
                    title=f"{sender}: {rule.count} {entries} of level {rule.min_level}"
                    f"{' or above' if rule.min_level != 'critical' else ''}"
                    f" within {rule.within:g} s",
                    reason=message,
                )
            )
        return found
