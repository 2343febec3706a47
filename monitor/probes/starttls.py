"""From a plain connection to TLS, as the protocols with STARTTLS do it.

Sources: RFC 3207 (SMTP), RFC 9051 (IMAP), RFC 2595 (POP3), RFC 4217 (FTP), RFC 4511 4.14 (LDAP),
and the message flows of PostgreSQL and MySQL in their manuals.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Literal

from monitor.probes.connection import ProbeError

__all__ = ["StartTls", "start_tls"]

StartTls = Literal["smtp", "imap", "pop3", "ftp", "ldap", "postgres", "mysql"]

_MOST_BYTES = 65536
_SHOWN_BYTES = 80
# An extended request of the id 1 with the OID of StartTLS; and the way to its result code.
_LDAP_REQUEST = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037"
_LDAP_SUCCESS = re.compile(rb"\x30.+?\x02\x01\x01\x78.+?\x0a\x01\x00", re.DOTALL)
_LDAP_ANSWER = re.compile(rb"\x30.+?\x02\x01\x01\x78.+?\x0a\x01.", re.DOTALL)
_POSTGRES_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
# CLIENT_PROTOCOL_41, CLIENT_SSL and CLIENT_SECURE_CONNECTION; packets of 16 MiB; utf8mb4.
_MYSQL_REQUEST = b"\x20\x00\x00\x01\x00\x8a\x00\x00\x00\x00\x00\x01\x2d" + bytes(23)
_MYSQL_CLIENT_SSL = 0x0800


async def start_tls(protocol: StartTls, connection: socket.socket) -> None:
    """Ask for TLS, before its handshake; raise ProbeError. The caller bounds the time."""
    await _PROTOCOLS[protocol](_Plain(connection))


class _Plain:
    """Reads answers from a socket, up to their last byte and no further."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._received = b""

    async def say(self, text: bytes) -> None:
        await self._loop.sock_sendall(self._connection, text)

    async def read(self, size: int) -> bytes:
        """Return exactly ``size`` bytes."""
        while len(self._received) < size:
            await self._more()
        found, self._received = self._received[:size], self._received[size:]
        return found

    async def line(self) -> bytes:
        while b"\n" not in self._received:
            await self._more()
        found, _, self._received = self._received.partition(b"\n")
        return found.rstrip(b"\r")

    async def until(self, expression: re.Pattern[bytes]) -> bytes:
        """Return what was received up to a match's end."""
        while (found := expression.search(self._received)) is None:
            await self._more()
        answer, self._received = self._received[: found.end()], self._received[found.end() :]
        return answer

    async def _more(self) -> None:
        if len(self._received) > _MOST_BYTES:
            raise ProbeError(f"bad-answer: {self._received[:_SHOWN_BYTES]!r}")
        piece = await self._loop.sock_recv(self._connection, 4096)
        if not piece:
            raise ProbeError("reset: the connection was closed before TLS")
        self._received += piece

    async def finished(self) -> None:
        """Refuse plain text after the last answer. Source: CVE-2021-33515."""
        if self._received:
            raise ProbeError("bad-answer: unexpected data before TLS")


def _refusal(answer: bytes) -> ProbeError:
    return ProbeError(f"tls: the server refuses STARTTLS: {answer[:_SHOWN_BYTES]!r}")


async def _reply(plain: _Plain) -> bytes:
    """Return the last line of a reply with a code, as SMTP and FTP have it."""
    line = await plain.line()
    code = line[:3]
    if not re.match(rb"\d{3}", line):
        raise ProbeError(f"bad-answer: {line[:_SHOWN_BYTES]!r}")
    # FTP's lines in between may be anything. Source: RFC 959, 4.2.
    while not line.startswith(code) or line[3:4] == b"-":
        line = await plain.line()
    return line


async def _smtp(plain: _Plain) -> None:
    greeting = await _reply(plain)
    if not greeting.startswith(b"220"):
        raise _refusal(greeting)
    await plain.say(b"EHLO recodex-monitor.invalid\r\n")
    answer = await _reply(plain)
    if not answer.startswith(b"250"):
        raise _refusal(answer)
    await plain.say(b"STARTTLS\r\n")
    answer = await _reply(plain)
    if not answer.startswith(b"220"):
        raise _refusal(answer)


async def _ftp(plain: _Plain) -> None:
    greeting = await _reply(plain)
    if not greeting.startswith(b"220"):
        raise _refusal(greeting)
    await plain.say(b"AUTH TLS\r\n")
    answer = await _reply(plain)
    if not answer.startswith((b"234", b"334")):
        raise _refusal(answer)


async def _imap(plain: _Plain) -> None:
    greeting = await plain.line()
    if not greeting.upper().startswith(b"* OK"):
        raise _refusal(greeting)
    await plain.say(b"a1 STARTTLS\r\n")
    while (line := await plain.line()).startswith(b"*"):
        pass
    if not line.upper().startswith(b"A1 OK"):
        raise _refusal(line)


async def _pop3(plain: _Plain) -> None:
    greeting = await plain.line()
    if not greeting.startswith(b"+OK"):
        raise _refusal(greeting)
    await plain.say(b"STLS\r\n")
    answer = await plain.line()
    if not answer.startswith(b"+OK"):
        raise _refusal(answer)


async def _ldap(plain: _Plain) -> None:
    await plain.say(_LDAP_REQUEST)
    answer = await plain.until(_LDAP_ANSWER)
    if not _LDAP_SUCCESS.search(answer):
        raise _refusal(answer)
    # The rest of the answer's message: its length is in its second byte.
    header = 2 + (answer[1] & 0x7F if answer[1] & 0x80 else 0)
    length = int.from_bytes(answer[2:header], "big") if header > 2 else answer[1]
    await plain.read(max(0, header + length - len(answer)))


async def _postgres(plain: _Plain) -> None:
    await plain.say(_POSTGRES_REQUEST)
    answer = await plain.read(1)
    if answer != b"S":
        raise _refusal(answer)


async def _mysql(plain: _Plain) -> None:
    header = await plain.read(4)
    size = int.from_bytes(header[:3], "little")
    if not 0 < size <= _MOST_BYTES:
        raise ProbeError("bad-answer: not MySQL's greeting")
    greeting = await plain.read(size)
    if greeting[:1] != b"\x0a":
        raise _refusal(greeting)
    # After the version's text: thread id (4), scramble (8), filler (1), capabilities (2).
    place = greeting.find(b"\0", 1) + 1 + 13
    capabilities = int.from_bytes(greeting[place : place + 2], "little")
    if not capabilities & _MYSQL_CLIENT_SSL:
        raise _refusal(b"no CLIENT_SSL")
    await plain.say(_MYSQL_REQUEST)


def _strict(step: Callable[[_Plain], Awaitable[None]]) -> Callable[[_Plain], Awaitable[None]]:
    async def whole(plain: _Plain) -> None:
        await step(plain)
        await plain.finished()

    return whole


_PROTOCOLS: dict[str, Callable[[_Plain], Awaitable[None]]] = {
    "smtp": _strict(_smtp),
    "imap": _strict(_imap),
    "pop3": _strict(_pop3),
    "ftp": _strict(_ftp),
    "ldap": _strict(_ldap),
    "postgres": _strict(_postgres),
    "mysql": _strict(_mysql),
}
