"""The kind ``websocket``: the opening handshake, up to the server's 101, and a dialogue."""

# ruff: noqa: D102 - Check documents the methods

from __future__ import annotations

import asyncio
import base64
import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast
from urllib.parse import unquote

import msgspec

from monitor.errors import SettingError
from monitor.probes.check import Attempt, Check, Outcome
from monitor.probes.connection import Connection, ProbeError, converse
from monitor.probes.dialogue import MOST_RECEIVED_BYTES, Listening, Step, verify_dialogue
from monitor.probes.headers import verify_headers, verify_length, verify_name
from monitor.probes.job import Option
from monitor.probes.tls import TLS_OPTIONS, TlsClient, TlsKeys
from monitor.probes.tunnel import Tunnel
from monitor.probes.urls import Url, parse_url
from monitor.settings import secret, verify_each
from monitor.yielding import over_turns

if TYPE_CHECKING:
    from websockets.client import ClientProtocol
    from websockets.typing import Subprotocol

__all__ = ["WebsocketCheck", "WebsocketJob"]

# What is read at once, and parsed before another check has its turn; and what is parsed between two
# looks at the clock, of which the smallest frames take about 2 ms.
_READ_BYTES = 4096
_SLICE_BYTES = 256
# Of the answer to the handshake, as libcurl has it.
_MOST_HEADER_BYTES = 307_200
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})(?: |\r?\n)")
_SWITCHING = 101
# The headers that decide about the handshake; the library has a limit for their number and length.
_DECIDING = (
    b"connection",
    b"sec-websocket-accept",
    b"sec-websocket-extensions",
    b"sec-websocket-protocol",
    b"upgrade",
)
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
    # offered to the server, which must choose it
    subprotocol: str | None = None
    # what to expect and to send, step by step; a message is a line, and is sent as text
    dialogue: list[Step] = msgspec.field(default_factory=list)
    # http://[user:password@]host:port; the environment's proxies are not used
    proxy: Annotated[str, secret] | None = None

    def verify(self) -> None:
        """Check credentials, headers, subprotocol, dialogue and proxy, too."""
        verify_each(
            super().verify,
            self._verify_url,
            self._verify_tls,
            lambda: verify_headers(self.headers),
            lambda: verify_length(self.headers, None),
            *(partial(_verify_header, *each) for each in self.headers.items()),
            self._verify_subprotocol,
            lambda: verify_dialogue(self.dialogue),
            lambda: self.proxy is not None and Tunnel.of(self.proxy),
        )

    def _verify_url(self) -> None:
        url = parse_url(self.url, self.schemes)
        if url.user and not url.password:
            raise SettingError(("url",), "has a user without a password")
        try:
            unquote(url.user + url.password, errors="strict")
        except UnicodeDecodeError:
            raise SettingError(("url",), "has credentials that are not UTF-8") from None

    def _verify_tls(self) -> None:
        if parse_url(self.url, self.schemes).scheme == "ws":
            self.refuse_without_tls("use wss://")

    def _verify_subprotocol(self) -> None:
        if self.subprotocol is not None:
            verify_name(self.subprotocol, ("subprotocol",), what="subprotocol")
            if _SUBPROTOCOL in map(str.lower, self.headers):
                raise SettingError(
                    ("subprotocol",), "the header Sec-WebSocket-Protocol is set, too"
                )


def _verify_header(name: str, value: str) -> None:
    if name.lower() in _HANDSHAKE_HEADERS:
        raise SettingError(("headers", name), "is set by the handshake itself")
    if name.lower() == _SUBPROTOCOL:
        for each in value.split(","):
            verify_name(each.strip(), ("headers", name), what="subprotocol")


class WebsocketCheck(Check[WebsocketJob]):
    """Opens a WebSocket, holds the dialogue, and closes the connection."""

    job = WebsocketJob
    errors: ClassVar = {"proxy": "the proxy could not be found, reached or used"}
    options = (
        Option(
            "--subprotocol", "subprotocol", "the subprotocol that the server must choose", "NAME"
        ),
        *TLS_OPTIONS,
    )

    @classmethod
    def load(cls) -> None:
        import websockets.client  # noqa: F401 - for what it raises

    def prepare(self, job: WebsocketJob) -> Attempt:
        url = parse_url(job.url, job.schemes)
        tls = TlsClient.of(job, url.host) if url.scheme == "wss" else None
        tunnel = None if job.proxy is None else Tunnel.of(job.proxy)

        async def establish(connection: Connection) -> None:
            if tunnel is None:
                await connection.connect(url.host, url.port)
            else:
                await tunnel.connect(connection, url.host, url.port)
            if tls is not None:
                await connection.secure(tls)

        async def talk(connection: Connection) -> None:
            peer = _Peer(job, url, *await connection.streams(), parsing=self.network.parsing)
            await peer.handshake(connection)
            listening = Listening(connection, self.matcher, job.id, peer.message)
            try:
                await listening.hold(job.dialogue, peer.send)
            except ProbeError as error:
                raise ProbeError(f"{error}{peer.farewell}") from None
            connection.matched = True

        async def attempt() -> Outcome:
            return await converse(job, self.network, establish, talk)

        return attempt


class _Peer:
    """The server at the other end."""

    def __init__(
        self,
        job: WebsocketJob,
        url: Url,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        parsing: asyncio.Lock,
    ) -> None:
        from websockets.client import ClientProtocol
        from websockets.uri import WebSocketURI

        uri = WebSocketURI(url.scheme == "wss", url.host, url.port, url.path, url.query)
        self._job = job
        self._credentials = url.credentials
        self._reader = reader
        self._writer = writer
        self._parsing = parsing
        self._events: list[Any] = []
        self._protocol = ClientProtocol(
            uri, max_size=MOST_RECEIVED_BYTES, subprotocols=_subprotocols(job)
        )

    async def handshake(self, connection: Connection) -> None:
        """Open the WebSocket; raise ProbeError if the server does not agree."""
        protocol = self._protocol
        request = protocol.connect()
        if self._credentials is not None:
            encoded = base64.b64encode(b":".join(self._credentials)).decode()
            request.headers["Authorization"] = f"Basic {encoded}"
        for name, value in self._job.headers.items():
            if name.lower() != _SUBPROTOCOL:
                # Adding it would send a Host or an Authorization twice.
                request.headers.pop(name, None)
                # The library writes each letter as a byte.
                request.headers[name] = value.encode().decode("latin-1")
        protocol.send_request(request)
        await self._flush()
        status, answer = await self._answer()
        if status != _SWITCHING:
            connection.status = status
            raise ProbeError(f"bad-status: {status}")
        protocol.receive_data(answer)
        _require_upgrade(protocol, connection)
        wanted = self._job.subprotocol
        if wanted is not None and protocol.subprotocol != wanted:
            raise ProbeError("bad-answer: the server does not choose the subprotocol")
        # The first event is the response; messages may have come with it.
        self._events = protocol.events_received()[1:]

    async def _answer(self) -> tuple[int, bytes]:
        """Return the answer's status, and its header as far as it decides about the handshake."""
        left = _MOST_HEADER_BYTES
        while True:
            first = await self._line(left)
            found = _STATUS.match(first)
            if found is None:
                raise ProbeError("bad-answer: not an answer of HTTP/1.1")
            # The library reads lines with CRLF only.
            lines, left = [first.rstrip(b"\r\n") + b"\r\n"], left - len(first)
            while (line := await self._line(left)).strip():
                left -= len(line)
                if line.partition(b":")[0].strip().lower() in _DECIDING:
                    lines.append(line.rstrip(b"\r\n") + b"\r\n")
            status = int(found[1])
            # Interim answers come before the one that counts. Source: RFC 9110, 15.2.
            if status == _SWITCHING or not 100 <= status < 200:
                return status, b"".join((*lines, b"\r\n"))

    async def _line(self, most: int) -> bytes:
        try:
            line = await self._reader.readline()
        except ValueError:
            most, line = 0, b"\n"
        if not line.endswith(b"\n"):
            raise ProbeError("reset: the connection was closed")
        if len(line) > most:
            raise ProbeError("bad-answer: its header is too long")
        return line

    async def message(self) -> bytes:
        """Return the next message as a line, and nothing once the server has closed."""
        from websockets.frames import Opcode

        found = b""
        while True:
            events, self._events = self._events, []
            for event in (*events, *self._protocol.events_received()):
                opcode = getattr(event, "opcode", None)
                if opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    found += getattr(event, "data", b"")
                    if getattr(event, "fin", True):
                        found += b"\n"
            if found:
                return found
            if (broken := self._protocol.parser_exc) is not None:
                text = str(broken).encode("ascii", "backslashreplace").decode()
                if not isinstance(broken, EOFError):
                    raise ProbeError(f"bad-answer: {text or type(broken).__name__}")
            if self._protocol.close_expected() or self._reader.at_eof():
                return b""
            await self._receive()

    @property
    def farewell(self) -> str:
        """What the server closed with, for the end of an error's text; "" if it did not."""
        close = self._protocol.close_rcvd
        if close is None:
            return ""
        reason = close.reason[:80].encode("ascii", "backslashreplace").decode()
        return f", closed with {close.code}{f' {reason}' if reason else ''}"

    async def send(self, text: bytes) -> None:
        """Send a text message."""
        self._protocol.send_text(text)
        await self._flush()

    async def _receive(self) -> None:
        data = await self._reader.read(_READ_BYTES)
        if data:
            slices = (data[at : at + _SLICE_BYTES] for at in range(0, len(data), _SLICE_BYTES))
            async with self._parsing:
                async for each in over_turns(slices):
                    self._protocol.receive_data(each)
        else:
            self._protocol.receive_eof()
        # Answers to pings, for instance.
        await self._flush()

    async def _flush(self) -> None:
        self._writer.write(b"".join(self._protocol.data_to_send()))
        await self._writer.drain()


def _subprotocols(job: WebsocketJob) -> list[Subprotocol] | None:
    """Return what the job offers: the library must know, to accept the answer."""
    offered = [value for name, value in job.headers.items() if name.lower() == _SUBPROTOCOL]
    if job.subprotocol is not None:
        offered.append(job.subprotocol)
    return [
        cast("Subprotocol", each.strip()) for value in offered for each in value.split(",")
    ] or None


def _require_upgrade(protocol: ClientProtocol, connection: Connection) -> None:
    """Raise what is wrong with the server's answer of status 101, if anything."""
    from websockets.exceptions import InvalidHandshake

    failure = protocol.handshake_exc
    if failure is None:
        connection.status = _SWITCHING
    elif isinstance(failure, (InvalidHandshake, ValueError)):
        # The library's words may have bytes of the answer that are not text.
        text = str(failure).encode("ascii", "backslashreplace").decode()
        raise ProbeError(f"bad-answer: {text}")
    else:
        raise failure
