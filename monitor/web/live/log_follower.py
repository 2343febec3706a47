"""Sends the live tail of logs to one WebSocket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from monitor.logs.followers import LiveMessage
from monitor.transport.frames import text_frame
from monitor.web.http.websocket import WebSocket

if TYPE_CHECKING:
    from monitor.logs.part import Logs
    from monitor.logs.reader import LogReader
    from monitor.logs.session import Session

__all__ = ["SocketFollower", "log_session"]

# While more than this is unread, the client misses entries.
_FOLLOWER_BUFFER_BYTES = 1024 * 1024


class SocketFollower:
    """A WebSocket as a follower of the live tail."""

    def __init__(self, connection: WebSocket) -> None:
        self._connection = connection
        self._dropped = 0

    def offer(self, message: LiveMessage) -> None:
        """Send the message, or drop and count it if the client is too far behind."""
        if self._connection.buffered_bytes > _FOLLOWER_BUFFER_BYTES:
            self._dropped += message.count
        elif self._dropped:
            self._connection.write(text_frame(message.text(self._dropped)))
            self._dropped = 0
        else:
            self._connection.write(message.shared(text_frame))

    def catch_up(self) -> None:
        """Report how many entries were dropped, once the client reads again."""
        if self._dropped and self._connection.buffered_bytes <= _FOLLOWER_BUFFER_BYTES // 2:
            self.offer(LiveMessage([]))


async def log_session(logs: Logs | LogReader, connection: WebSocket) -> Session:
    """Return a session of the log actions that answers on ``connection``."""
    await logs.attend()

    def send(answer: bytes) -> None:
        connection.write(text_frame(answer))

    return logs.session(send=send, follower=SocketFollower(connection))
