"""The kind ``websocket``: the opening handshake, up to the server's 101."""

# ruff: noqa: D102 - Check documents the methods

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, cast
from urllib.parse import unquote, urlunsplit

import msgspec

from monitor.errors import SettingError
from monitor.probes.check import Attempt, Check, Outcome
from monitor.probes.connection import Connection, ProbeError
from monitor.probes.headers import verify_headers
from monitor.probes.tls import TLS_OPTIONS, TlsKeys, tls_context
from monitor.probes.urls import split_url
from monitor.settings import secret

if TYPE_CHECKING:
    from websockets.client import ClientProtocol
    from websockets.typing import Subprotocol

__all__ = ["WebsocketCheck", "WebsocketJob"]

_READ_BYTES = 65536
_SUBPROTOCOL = "sec-websocket-protocol"
# RFC 6455, 4.1: the handshake depends on them.
_HANDSHAKE_HEADERS = (
    "connection",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-version",
    "upgrade",
)


class WebsocketJob(TlsKeys, frozen=True, kw_only=True, tag="websocket"):
    """A WebSocket server that completes the opening handshake."""

    schemes: ClassVar[tuple[str, ...]] = ("ws", "wss")

    # sent with the handshake; may hold secrets
    headers: Annotated[dict[str, str], secret] = msgspec.field(default_factory=dict)

    def verify(self) -> None:
        """Check credentials and headers, too."""
        super().verify()
        parts = split_url(self.url, self.schemes)
        if parts.username is not None:
            if parts.password is None:
                raise SettingError(("url",), "has a user without a password")
            try:
                unquote(parts.username + parts.password, errors="strict")
            except UnicodeDecodeError:
                raise SettingError(("url",), "has credentials that are not UTF-8") from None
        verify_headers(self.headers)
        for name in self.headers:
            if name.lower() in _HANDSHAKE_HEADERS:
                raise SettingError(("headers", name), "is set by the handshake itself")


class WebsocketCheck(Check[WebsocketJob]):
    """Opens a WebSocket, and closes the connection once the server has agreed."""

    job = WebsocketJob
    options = TLS_OPTIONS

    @classmethod
    def load(cls) -> None:
        import websockets.client  # noqa: F401 - for what it raises

    def prepare(self, job: WebsocketJob) -> Attempt:
        from websockets.client import ClientProtocol
        from websockets.uri import parse_uri

        parts = split_url(job.url, job.schemes)
        uri = parse_uri(urlunsplit(parts._replace(fragment="")))
        tls = tls_context(job) if uri.secure else None
        subprotocols = _subprotocols(job)

        async def attempt() -> Outcome:
            async with Connection(job, self.resolver) as connection:
                reader, writer = await connection.open(uri.host, uri.port, tls=tls)
                protocol = ClientProtocol(
                    uri,
                    max_size=_READ_BYTES,
                    subprotocols=subprotocols,
                )
                request = protocol.connect()
                for name, value in job.headers.items():
                    if name.lower() != _SUBPROTOCOL:
                        # Adding it would send a Host or an Authorization twice.
                        request.headers.pop(name, None)
                        request.headers[name] = value
                protocol.send_request(request)
                writer.write(b"".join(protocol.data_to_send()))
                while not protocol.events_received() and protocol.handshake_exc is None:
                    data = await reader.read(_READ_BYTES)
                    if data:
                        protocol.receive_data(data)
                    else:
                        protocol.receive_eof()
                _require_upgrade(protocol, connection)
                connection.matched = True
            return connection.outcome()

        return attempt


def _subprotocols(job: WebsocketJob) -> list[Subprotocol] | None:
    """Return what the job's headers offer: the library must know, to accept the answer."""
    offered = [value for name, value in job.headers.items() if name.lower() == _SUBPROTOCOL]
    return [
        cast("Subprotocol", each.strip()) for value in offered for each in value.split(",")
    ] or None


def _require_upgrade(protocol: ClientProtocol, connection: Connection) -> None:
    """Raise what is wrong with the server's answer, if anything."""
    from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus

    failure = protocol.handshake_exc
    if failure is None:
        connection.status = 101
    elif isinstance(failure, InvalidStatus):
        connection.status = failure.response.status_code
        raise ProbeError(f"bad-status: {connection.status}")
    elif isinstance(failure, EOFError) or (
        isinstance(failure, InvalidMessage) and isinstance(failure.__cause__, EOFError)
    ):
        raise ProbeError("reset: the connection was closed")
    elif isinstance(failure, (InvalidHandshake, ValueError)):
        # The library's words may have bytes of the answer that are not text.
        text = str(failure).encode("ascii", "backslashreplace").decode()
        raise ProbeError(f"bad-answer: {text}")
    else:
        raise failure
