"""What the relay's two ZeroMQ inputs have in common: messages are decoded, and faults counted."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable

from monitor.log_limits import RateLimitedLog
from monitor.relay.protocol import Malformed, Message
from monitor.transport.curve import CurveKeys

__all__ = ["IDENTITY", "Receiver"]

logger = logging.getLogger("monitor.relay")

IDENTITY = b"recodex-monitor"


class Receiver(ABC):
    """Hands every good message to ``deliver``, in order.

    ``delivered`` is called after the last one of those that were there.
    """

    def __init__(
        self,
        *,
        deliver: Callable[[Message], None],
        delivered: Callable[[], None] = lambda: None,
        brokers_changed: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._deliver = deliver
        self._delivered = delivered
        # Told how many brokers are connected whenever one came or is gone.
        self._brokers_changed = brokers_changed
        self._peers_log = RateLimitedLog(logger)
        self.received = 0
        self.rejected: dict[str, int] = {}

    @property
    @abstractmethod
    def endpoints(self) -> list[str]:
        """Where it listens."""

    @abstractmethod
    async def start(self, *, read: bool = True) -> None:
        """Bind; raises ListenError, and SettingError for keys that cannot be used.

        Unless it shall ``read`` at once, brokers wait for :meth:`begin`.
        """

    @abstractmethod
    def begin(self) -> None:
        """Read what brokers send."""

    @abstractmethod
    def hold(self) -> None:
        """Let brokers wait for :meth:`begin` again; what is read already is still delivered."""

    @abstractmethod
    def stop(self) -> None:
        """Receive nothing more; what is there already is read first."""

    @abstractmethod
    def close(self) -> None:
        """Close the sockets."""

    def adopt_keys(self, keys: CurveKeys) -> None:  # noqa: B027 - only for CURVE
        """Let brokers with these keys connect; the relay's own stay."""

    # What the inputs use.

    def _reject(self, problem: Malformed, address: str, identity: bytes) -> None:
        self.rejected[problem.reason] = self.rejected.get(problem.reason, 0) + 1
        self._peers_log.warning(
            problem.reason,
            "dropped a message from %s (identity %s): %s",
            address,
            identity.hex()[:64],
            problem.details,
        )

    def _log_connected(self, count: int) -> None:
        self._peers_log.info("connect", "a ZeroMQ peer connected, %d now", count)

    def _log_disconnected(self, count: int) -> None:
        self._peers_log.info("disconnect", "a ZeroMQ peer disconnected, %d now", count)

    def _refused(self, reason: str, problem: str) -> None:
        self.rejected[reason] = self.rejected.get(reason, 0) + 1
        self._peers_log.warning(reason, "refused a ZeroMQ peer: %s", problem)
