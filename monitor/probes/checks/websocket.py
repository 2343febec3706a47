"""The kind ``websocket``: the upgrade, up to the server's 101."""

from __future__ import annotations

from urllib.parse import urlunsplit

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.uri import parse_uri

from monitor.probes.check import Attempt, Check, Outcome
from monitor.probes.connection import Connection, ProbeError, tls_context, verify_authorities
from monitor.probes.job import Job, split_url

__all__ = ["WebsocketCheck"]

_SCHEMES = ("ws", "wss")
_READ_BYTES = 65536


class WebsocketCheck(Check):
    """Asks for the upgrade with the library's protocol, and hangs up once it is granted."""

    kind = "websocket"
    schemes = _SCHEMES

    @classmethod
    def verify(cls, job: Job) -> None:
        """Check the URL and the certificate authorities."""
        split_url(job.url, _SCHEMES)
        if job.ca_file is not None:
            verify_authorities(job.ca_file)

    def prepare(self, job: Job) -> Attempt:
        """Return what asks the job's server for the upgrade."""
        parts = split_url(job.url, _SCHEMES)
        uri = parse_uri(urlunsplit(parts._replace(fragment="")))
        tls = tls_context(job) if uri.secure else None

        async def attempt() -> Outcome:
            async with Connection(job, self.resolver) as connection:
                reader, writer = await connection.open(uri.host, uri.port, tls=tls)
                protocol = ClientProtocol(uri, max_size=_READ_BYTES)
                request = protocol.connect()
                for name, value in job.headers.items():
                    request.headers[name] = value
                protocol.send_request(request)
                writer.write(b"".join(protocol.data_to_send()))
                while not protocol.events_received() and protocol.handshake_exc is None:
                    data = await reader.read(_READ_BYTES)
                    if data:
                        protocol.receive_data(data)
                    else:
                        protocol.receive_eof()
                _judge(protocol.handshake_exc, connection)
                connection.matched = True
            return connection.outcome()

        return attempt


def _judge(failure: Exception | None, connection: Connection) -> None:
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
        raise ProbeError(f"bad-answer: {failure}")
    else:
        raise failure
