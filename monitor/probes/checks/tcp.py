"""The kind ``tcp``: a connection, and optionally TLS, a banner or a dialogue."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from monitor.errors import SettingError
from monitor.probes.check import Attempt, Check, Outcome
from monitor.probes.connection import Connection, converse
from monitor.probes.dialogue import Listening, Step, verify_dialogue
from monitor.probes.job import Option
from monitor.probes.matching import REGEXP_OPTION, verify_expression
from monitor.probes.starttls import StartTls, start_tls
from monitor.probes.tls import TLS_OPTIONS, TlsClient, TlsKeys
from monitor.probes.urls import host_and_port
from monitor.settings import verify_each

__all__ = ["STARTTLS_OPTION", "TcpCheck", "TcpJob"]

_BANNER_BYTES = 4096

STARTTLS_OPTION = Option(
    "--starttls", "starttls", "how to ask for TLS: smtp, imap, ...", "PROTOCOL"
)


class TcpJob(TlsKeys, frozen=True, kw_only=True, tag="tcp"):
    """A TCP port that accepts connections, and what it says."""

    schemes: ClassVar[tuple[str, ...]] = ("tcp",)

    # must match the first 4096 bytes that the server sends, in Python's syntax (re.search); ^ and $
    # are those of a line
    body_regexp: str | None = None
    # what to expect and to send, step by step, after TLS if there is any
    dialogue: list[Step] = msgspec.field(default_factory=list)
    # true: TLS from the first byte
    tls: bool = False
    # the protocol in which the server is asked for TLS
    starttls: StartTls | None = None

    def verify(self) -> None:
        """Check the URL, ``tcp://host:port`` and nothing more, and the dialogue."""
        verify_each(
            super().verify,
            lambda: host_and_port(self.url, self.schemes),
            lambda: verify_expression(self.body_regexp, ("body_regexp",)),
            lambda: verify_dialogue(self.dialogue),
            self._verify_tls,
            self._verify_banner,
        )

    def _verify_tls(self) -> None:
        if self.starttls is not None and self.tls:
            raise SettingError(("starttls",), "conflicts with tls: true")
        if not self.tls and self.starttls is None:
            self.refuse_without_tls("set tls or starttls")

    def _verify_banner(self) -> None:
        if self.body_regexp is None:
            return
        if self.starttls is not None:
            raise SettingError(("body_regexp",), "the banner comes before STARTTLS: use dialogue")
        if self.dialogue:
            raise SettingError(("body_regexp",), "conflicts with dialogue: use its expect")


class TcpCheck(Check[TcpJob]):
    """Connects, shakes hands if asked to, and holds the dialogue."""

    job = TcpJob
    options = (
        REGEXP_OPTION,
        Option("--tls", "tls", "TLS from the first byte", value=True),
        STARTTLS_OPTION,
        *TLS_OPTIONS,
    )

    def prepare(self, job: TcpJob) -> Attempt:
        """Return what connects to the job's host and port."""
        host, port = host_and_port(job.url, job.schemes)
        tls = TlsClient.of(job, host) if job.tls or job.starttls else None

        async def establish(connection: Connection) -> None:
            plain = await connection.connect(host, port)
            if job.starttls is not None:
                await start_tls(job.starttls, plain)
            if tls is not None:
                await connection.secure(tls)

        async def talk(connection: Connection) -> None:
            if job.body_regexp is not None or job.dialogue:
                await hold_dialogue(connection)
            connection.matched = True

        async def hold_dialogue(connection: Connection) -> None:
            reader, writer = await connection.streams()
            listening = Listening(
                connection, self.matcher, job.id, lambda: reader.read(_BANNER_BYTES)
            )

            async def send(text: bytes) -> None:
                writer.write(text)
                await writer.drain()

            if job.body_regexp is not None:
                await listening.expect(job.body_regexp, "the banner", most=_BANNER_BYTES)
            await listening.hold(job.dialogue, send)

        async def attempt() -> Outcome:
            return await converse(job, self.network, establish, talk)

        return attempt
