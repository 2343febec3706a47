"""What sends a message to a receiver: Apprise, a webhook, an Alertmanager."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from monitor.alerts.incidents import Event, Incident
from monitor.alerts.settings import Receiver

__all__ = ["Message", "Outcome", "Target", "targets_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a receiver gets; ``delivery`` is the same at each attempt."""

    event: Event
    delivery: str
    incidents: Sequence[Incident]
    page: str | None
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a receiver said; without secrets.

    ``refused`` says that the receiver works and rejects this message. ``retry_after_s`` is how long
    it wants to be left alone.
    """

    accepted: bool
    said: str
    refused: bool = False
    retry_after_s: float | None = None


class Target(Protocol):
    """One place that a receiver's messages go to.

    ``key`` names it among those of its receiver, over restarts, without secrets.
    """

    @property
    def receiver(self) -> str:
        """The receiver's name."""

    @property
    def key(self) -> str:
        """The name among the targets of its receiver."""

    @property
    def refresh_s(self) -> float | None:
        """How often it has to be sent its open incidents again (s); None: never."""

    async def send(self, message: Message) -> Outcome:
        """Send a message; returns within about a minute, and raises nothing."""


def targets_of(receiver: Receiver) -> list[Target]:
    """Return the targets of a receiver; raise SettingError if a file of it cannot be read."""
    if receiver.urls_file is not None:
        from monitor.alerts.receivers.apprise_url import AppriseUrl

        return [AppriseUrl(receiver.name, url) for url in receiver.urls()]
    if receiver.webhook is not None:
        from monitor.alerts.receivers.webhook import Webhook

        return [Webhook(receiver.name, receiver.webhook, receiver.secret())]
    from monitor.alerts.receivers.alertmanager import Alertmanager

    return [Alertmanager(receiver.name, receiver.alertmanager)]
