"""One live page: its requests, and how much it is sent."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from monitor.tokens import Principal, Role
from monitor.transport.frames import binary_frame, text_frame
from monitor.web.http.websocket import WebSocket

if TYPE_CHECKING:
    from monitor.logs.part import Logs
    from monitor.logs.reader import LogReader
    from monitor.logs.session import Session
    from monitor.relay.part import Relay
    from monitor.web.live.channel_reader import ChannelReader

__all__ = ["LivePage", "frame_of"]

# A page with more unread data than this gets no updates, and a snapshot later.
_BEHIND_BYTES = 1024 * 1024
# A shorter message would hardly get shorter.
_LEAST_GZIP_BYTES = 400
# Frames of a followed channel, 16 KB each, that are made for one page in one turn of the loop.
_FRAMES_A_TURN = 16
_WATCHES: Final = frozenset(("channels", "notifications"))

_encode = msgspec.json.Encoder().encode


def frame_of(message: dict[str, Any]) -> bytes:
    """Return a message as a frame, the same for every page."""
    return text_frame(_encode(message))


class _Asked(msgspec.Struct):
    """A message of a page: what it watches, a log action, or a request about a channel."""

    watch: list[str] | msgspec.UnsetType = msgspec.UNSET
    action: msgspec.Raw = msgspec.Raw()
    type: str | msgspec.UnsetType = msgspec.UNSET


class LivePage:
    """One open page; ``watches`` are feeds that only some pages get."""

    def __init__(
        self, connection: WebSocket, *, relay: Relay | None, logs: Logs | LogReader | None
    ) -> None:
        self.connection = connection
        self.behind = True
        """Whether the page missed something, and needs a snapshot."""
        self.greeted: Principal | None = None
        """The principal that the last snapshot was for."""
        self.watches: frozenset[str] = frozenset()
        self.snapshot: Sequence[int] = ()
        """The ids of the jobs in the page's snapshot."""
        self.unsent = 0
        """How many of them the page still lacks, the last ones."""
        self.piece = 0
        """How many are sent next."""
        self.takes_gzip = "gzip" in connection.query
        self._relay = relay
        self._logs = logs
        # What is sent after the large message that is being compressed.
        self._held: list[bytes] | None = None
        self._following: ChannelReader | None = None
        self._session: Session | None = None

    @property
    def is_admin(self) -> bool:
        """Whether the page may see channels and change something."""
        return self.connection.principal.role is Role.ADMIN

    @property
    def is_full(self) -> bool:
        """Whether too much data waits for the page to send more."""
        return self.connection.buffered_bytes > _BEHIND_BYTES

    def write(self, message: dict[str, Any]) -> None:
        """Send a message."""
        self.write_frames(frame_of(message))

    def write_frames(self, frames: bytes) -> None:
        """Send messages that are encoded already."""
        if self._held is None:
            self.connection.write(frames)
        else:
            self._held.append(frames)

    async def write_large(self, message: dict[str, Any]) -> None:
        """Send a message, compressed if the page has asked for that; one at a time.

        What is sent meanwhile follows it, as it may be newer than what it says.
        """
        data = _encode(message)
        if not self.takes_gzip or len(data) < _LEAST_GZIP_BYTES:
            self.write_frames(text_frame(data))
            return
        held: list[bytes] = []
        self._held = held
        try:
            data = await asyncio.to_thread(gzip.compress, data, 4, mtime=0)
        finally:
            self._held = None
        self.connection.write(b"".join((binary_frame(data), *held)))

    def close(self) -> None:
        """End its use of the logs."""
        if self._session is not None:
            self._session.close()

    async def take(self, data: bytes) -> frozenset[str]:
        """Answer a message; return the feeds that the page has just asked to watch."""
        try:
            asked = msgspec.json.decode(data, type=_Asked)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._refuse("not understood")
            return frozenset()
        if bytes(asked.action):
            await self._log_action(data)
        elif asked.type is not msgspec.UNSET:
            self._channel_request(data)
        elif asked.watch is not msgspec.UNSET:
            self.watches = _WATCHES.intersection(asked.watch)
            return self.watches
        return frozenset()

    def _refuse(self, problem: str) -> None:
        self.write({"type": "error", "message": problem})

    async def _log_action(self, data: bytes) -> None:
        if self._logs is None:
            self._refuse("logs are off here")
            return
        if self._session is None:
            from monitor.web.live.log_follower import log_session

            self._session = await log_session(self._logs, self.connection)
        await self._session.receive(data, self.connection.principal)

    # The channel that the page follows

    def _channel_request(self, data: bytes) -> None:
        if self._relay is None:
            self._refuse("there is no relay here")
        elif not self.is_admin:
            self._refuse("channels are shown to admins")
        else:
            if self._following is None:
                from monitor.web.live.channel_reader import ChannelReader

                self._following = ChannelReader(self._relay.channels, self._relay.feed)
            problem = self._following.take(data)
            if problem is not None:
                self.connection.write(problem)
            self.follow_on()

    def follow_on(self) -> bool:
        """Send some of the channel's news; return whether there may be more."""
        following = self._following
        if following is None:
            return False
        if not self.is_admin:  # its role has changed
            self._following = None
            return False
        for _ in range(_FRAMES_A_TURN):
            if self.is_full:
                return False
            frame = following.next()
            if frame is None or not self.connection.write(frame):
                return False
        return True
