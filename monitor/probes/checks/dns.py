"""The kind ``dns``: a name server that answers a question as expected. Source: RFC 1035."""

# ruff: noqa: D102 - Check documents the methods

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import parse_qsl, unquote

import msgspec

from monitor.errors import SettingError
from monitor.libraries import needed_by
from monitor.probes.check import Attempt, Check, Outcome
from monitor.probes.connection import Connection, ProbeError
from monitor.probes.job import Job, Option
from monitor.probes.matching import verify_expression
from monitor.probes.racing import first_success
from monitor.probes.sockets import Sockets
from monitor.probes.urls import Url, ascii_host, parse_url
from monitor.settings import verify_each

if TYPE_CHECKING:
    from dns.message import Message
    from dns.rcode import Rcode

__all__ = ["DnsCheck", "DnsJob"]

_PORT = 53
_MOST_EXPRESSIONS = 100
_ID_BYTES = 2
_MOST_KEPT_BYTES = 1232
_MOST_ANSWER_BYTES = 65535
# After how long a question is sent again, in s: datagrams get lost.
_AGAIN_S = 1.0
_NO_ANSWER = "bad-answer: not an answer to the question"


class DnsJob(Job, frozen=True, kw_only=True, tag="dns"):
    """A name server that answers a question."""

    schemes: ClassVar[tuple[str, ...]] = ("dns",)

    # each must match the data of a record in the answer
    expected: list[str] = msgspec.field(default_factory=list)
    # the response code, such as NOERROR or NXDOMAIN
    expected_rcode: str = "NOERROR"
    # udp asks again over tcp for an answer that is too long
    transport: Literal["udp", "tcp"] = "udp"

    def verify(self) -> None:
        """Check the URL, ``dns://server[:port]/name?type=A``, the code and the expressions."""
        verify_each(
            super().verify,
            self._verify_url,
            self._verify_code,
            self._verify_expressions,
        )

    def _verify_url(self) -> None:
        url = parse_url(self.url, self.schemes)
        if "#" in self.url:
            raise _more()
        _question(url)

    def _verify_code(self) -> None:
        with needed_by("probes"):
            import dns.rcode
        try:
            dns.rcode.from_text(self.expected_rcode)
        except (dns.rcode.UnknownRcode, ValueError):
            problem = f"{self.expected_rcode!r} is not a response code such as NOERROR"
            raise SettingError(("expected_rcode",), problem) from None

    def _verify_expressions(self) -> None:
        if len(self.expected) > _MOST_EXPRESSIONS:
            raise SettingError(("expected",), f"more than {_MOST_EXPRESSIONS}")
        verify_each(
            *(
                partial(verify_expression, expression, ("expected", number))
                for number, expression in enumerate(self.expected)
            )
        )


def _more() -> SettingError:
    return SettingError(("url",), "must be dns://server[:port]/name?type=A and nothing more")


def _question(url: Url) -> Message:
    """Return the question in a URL; raise SettingError."""
    with needed_by("probes"):
        import dns.exception
        import dns.message
        import dns.name
        import dns.rdatatype
    name = unquote(url.path.strip("/"))
    given = parse_qsl(url.query, keep_blank_values=True)
    parameters = dict(given)
    # Without a name, the root's servers: every name server knows them.
    kind = parameters.pop("type", "A" if name else "NS")
    if parameters or len(given) > 1 or "/" in name or url.user or url.password:
        raise _more()
    try:
        found = dns.name.from_text(name if name.isascii() else ascii_host(name))
    except (dns.exception.DNSException, ValueError):
        raise SettingError(("url",), f"{name!r} is not a name") from None
    try:
        return dns.message.make_query(found, dns.rdatatype.from_text(kind), use_edns=0)
    except (dns.exception.DNSException, ValueError):
        raise SettingError(("url",), f"{kind!r} is not a type of record") from None


class DnsCheck(Check[DnsJob]):
    """Asks the server, and compares its answer."""

    job = DnsJob
    errors: ClassVar = {"bad-rcode": "an answer with another response code than expected_rcode"}
    options = (
        Option("--expected", "expected", "must match a record of the answer", "RE", many=True),
        Option("--rcode", "expected_rcode", "the expected response code (NOERROR)", "CODE"),
    )

    @classmethod
    def load(cls) -> None:
        import dns.message  # noqa: F401 - for what it raises

    def prepare(self, job: DnsJob) -> Attempt:
        import dns.rcode

        url = parse_url(job.url, job.schemes)
        question, port = _Question(_question(url)), url.port or _PORT
        rcode = dns.rcode.from_text(job.expected_rcode)

        async def attempt() -> Outcome:
            async with Connection(job, self.network) as connection:
                answer = None
                if job.transport == "udp":
                    answer = await self._over_udp(connection, url.host, port, question)
                if answer is None or answer.truncated:
                    answer = await _over_tcp(connection, url.host, port, question)
                connection.matched = False
                if answer.rcode != rcode:
                    raise ProbeError(f"bad-rcode: {dns.rcode.to_text(answer.rcode)}")
                await self._compare(job, connection, answer.records)
                connection.matched = True
            return connection.outcome()

        return attempt

    async def _compare(self, job: DnsJob, connection: Connection, records: list[str]) -> None:
        for expression in job.expected:
            for record in records:
                if await self.matcher.search(
                    expression,
                    record.encode("utf-8", "replace"),
                    charset="utf-8",
                    job_id=job.id,
                    timeout_s=connection.left_s,
                ):
                    break
            else:
                shown = ", ".join(records)[:200].encode("ascii", "backslashreplace").decode()
                raise ProbeError(f"body-mismatch: no record matches; {shown or 'there is none'}")

    async def _over_udp(
        self, connection: Connection, host: str, port: int, question: _Question
    ) -> _Answer:
        """Ask the host's addresses until one of them answers."""
        addresses = await connection.addresses(host)
        ask = partial(_ask, connection, self.network.sockets, port, question)
        return await first_success(addresses, ask)


@dataclass(frozen=True, slots=True)
class _Answer:
    """An answer, as far as checks look at it; ``records`` are the data of those in its answer."""

    rcode: Rcode
    truncated: bool
    records: list[str]
    # The server may be older than EDNS, and understand the question without. RFC 6891, 7.
    before_edns: bool


class _Question:
    """A question, prepared once."""

    __slots__ = ("_last", "_message", "_wire")

    def __init__(self, message: Message) -> None:
        self._message = message
        self._wire = message.to_wire()
        # Taking an answer apart costs more than all the rest, and most servers repeat theirs.
        self._last: tuple[bytes, _Answer] | None = None

    def without_edns(self) -> _Question:
        """Return the same question as it was asked before EDNS."""
        import dns.message

        (asked,) = self._message.question
        return _Question(dns.message.make_query(asked.name, asked.rdtype, use_edns=False))

    def asked(self) -> bytes:
        """Return what to send, each time with another id, as answers may come late."""
        return os.urandom(_ID_BYTES) + self._wire[_ID_BYTES:]

    def answer(self, data: bytes, asked: bytes) -> _Answer | None:
        """Return the answer to what was asked, or None for other data; raise ProbeError."""
        if data[:_ID_BYTES] != asked[:_ID_BYTES]:
            return None
        # The prepared message has an id of its own.
        data = self._wire[:_ID_BYTES] + data[_ID_BYTES:]
        if self._last is not None and self._last[0] == data:
            return self._last[1]
        answer = self._read(data)
        if answer is not None and len(data) <= _MOST_KEPT_BYTES:
            self._last = data, answer
        return answer

    def _read(self, data: bytes) -> _Answer | None:
        import dns.exception
        import dns.flags
        import dns.message
        import dns.rcode

        try:
            found: Any = dns.message.from_wire(data, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            raise ProbeError("bad-answer: not a DNS message") from None
        if not self._message.is_response(found):
            return None
        records = [record.to_text() for each in found.answer for record in each]
        rcode = found.rcode()
        before_edns = (
            rcode in (dns.rcode.FORMERR, dns.rcode.NOTIMP) and found.edns < 0 <= self._message.edns
        )
        return _Answer(rcode, bool(found.flags & dns.flags.TC), records, before_edns)


async def _ask(
    connection: Connection, sockets: Sockets, port: int, question: _Question, address: str
) -> _Answer:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as datagrams:
        await sockets.connect(datagrams, address, port)
        asked = question.asked()
        while True:
            await sockets.send(datagrams, asked)
            try:
                async with asyncio.timeout(_AGAIN_S):
                    while True:
                        data = await sockets.receive(datagrams, _MOST_ANSWER_BYTES)
                        answer = question.answer(data, asked)
                        if answer is None:
                            # Not for us, or forged.
                            connection.if_late = _NO_ANSWER
                        elif not answer.before_edns:
                            return answer
                        else:
                            question = question.without_edns()
                            asked = question.asked()
                            break
            except TimeoutError:
                continue


async def _over_tcp(connection: Connection, host: str, port: int, question: _Question) -> _Answer:
    reader, writer = await connection.open(host, port, tls=None)
    while True:
        asked = question.asked()
        writer.write(len(asked).to_bytes(2, "big") + asked)
        size = int.from_bytes(await reader.readexactly(2), "big")
        answer = question.answer(await reader.readexactly(size), asked)
        if answer is None:
            raise ProbeError(_NO_ANSWER)
        if not answer.before_edns:
            return answer
        question = question.without_edns()
