"""The kind ``dns``: a name server that answers a question as expected. Source: RFC 1035."""

# ruff: noqa: D102 - Check documents the methods

from __future__ import annotations

import asyncio
import socket
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
from monitor.probes.urls import Url, ascii_host, parse_url

if TYPE_CHECKING:
    from dns.message import Message

__all__ = ["DnsCheck", "DnsJob"]

_PORT = 53
_MOST_EXPRESSIONS = 100
_MOST_ANSWER_BYTES = 65535
# After how long a question is sent again, in s: datagrams get lost.
_AGAIN_S = 1.0


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
        super().verify()
        _question(parse_url(self.url, self.schemes))
        with needed_by("probes"):
            import dns.rcode
        try:
            dns.rcode.from_text(self.expected_rcode)
        except (dns.rcode.UnknownRcode, ValueError):
            problem = f"{self.expected_rcode!r} is not a response code such as NOERROR"
            raise SettingError(("expected_rcode",), problem) from None
        if len(self.expected) > _MOST_EXPRESSIONS:
            raise SettingError(("expected",), f"more than {_MOST_EXPRESSIONS}")
        for number, expression in enumerate(self.expected):
            verify_expression(expression, ("expected", number))


def _question(url: Url) -> Message:
    """Return the question in a URL; raise SettingError."""
    with needed_by("probes"):
        import dns.exception
        import dns.message
        import dns.name
        import dns.rdatatype
    name = unquote(url.path.strip("/"))
    parameters = dict(parse_qsl(url.query, keep_blank_values=True))
    # Without a name, the root's servers: every name server knows them.
    kind = parameters.pop("type", "A" if name else "NS")
    if parameters or "/" in name or url.user or url.password:
        raise SettingError(("url",), "must be dns://server[:port]/name?type=A and nothing more")
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
        url = parse_url(job.url, job.schemes)
        question, port = _question(url), url.port or _PORT

        async def attempt() -> Outcome:
            import dns.flags
            import dns.message

            async with Connection(job, self.resolver) as connection:
                # Another id for each attempt, as answers may come late.
                asked = dns.message.make_query(
                    question.question[0].name, question.question[0].rdtype, use_edns=0
                )
                answer = None
                if job.transport == "udp":
                    answer = await _over_udp(connection, url.host, port, asked)
                if answer is None or answer.flags & dns.flags.TC:
                    answer = await _over_tcp(connection, url.host, port, asked)
                await self._compare(job, connection, answer)
            return connection.outcome()

        return attempt

    async def _compare(self, job: DnsJob, connection: Connection, answer: Message) -> None:
        import dns.rcode

        code = dns.rcode.to_text(answer.rcode())
        connection.matched = False
        if answer.rcode() != dns.rcode.from_text(job.expected_rcode):
            raise ProbeError(f"bad-rcode: {code}")
        records = [record.to_text() for each in answer.answer for record in each]
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
        connection.matched = True


async def _over_udp(connection: Connection, host: str, port: int, asked: Message) -> Message:
    """Ask the host's addresses until one of them answers."""
    return await first_success(await connection.addresses(host), partial(_ask, port, asked))


async def _ask(port: int, asked: Message, address: str) -> Message:
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
        datagrams.setblocking(False)
        datagrams.connect((address, port))
        wire = asked.to_wire()
        while True:
            await loop.sock_sendall(datagrams, wire)
            try:
                async with asyncio.timeout(_AGAIN_S):
                    while True:
                        data = await loop.sock_recv(datagrams, _MOST_ANSWER_BYTES)
                        answer = _answer(data, asked)
                        # Anything else is not for us, or forged.
                        if answer is not None:
                            return answer
            except TimeoutError:
                continue


async def _over_tcp(connection: Connection, host: str, port: int, asked: Message) -> Message:
    reader, writer = await connection.open(host, port, tls=None)
    wire = asked.to_wire()
    writer.write(len(wire).to_bytes(2, "big") + wire)
    size = int.from_bytes(await reader.readexactly(2), "big")
    answer = _answer(await reader.readexactly(size), asked)
    if answer is None:
        raise ProbeError("bad-answer: not an answer to the question")
    return answer


def _answer(data: bytes, asked: Message) -> Message | None:
    """Return the answer to a question, or None for other data."""
    import dns.exception
    import dns.message

    try:
        answer: Any = dns.message.from_wire(data, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        if data[:2] != asked.id.to_bytes(2, "big"):
            return None
        raise ProbeError("bad-answer: not a DNS message") from None
    return answer if asked.is_response(answer) else None
