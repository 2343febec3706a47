"""A webhook: JSON by POST, signed by HMAC-SHA256 of the body."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import msgspec

from monitor.alerts.receivers import Message, Outcome
from monitor.alerts.receivers.posting import Answer, Body, encoded_pieces, post
from monitor.files.threads import call_aside

__all__ = ["Webhook", "outcome_of"]

# What a slow one accepts after that is sent again.
_PATIENCE_S = 50.0
_encode = msgspec.json.Encoder().encode


class Webhook:
    """A URL that gets every message as JSON."""

    refresh_s = None
    key = ""

    def __init__(self, receiver: str, url: str, secret: str | None) -> None:
        self.receiver = receiver
        self._url = url
        self._secret = None if secret is None else secret.encode()

    async def send(self, message: Message) -> Outcome:
        """Send a message; see :class:`Target`."""
        return outcome_of(await call_aside(self._send, message))

    def _send(self, message: Message) -> Answer:
        body = Body(lambda: _pieces(message))
        headers = {"Content-Type": "application/json", "X-Delivery": message.delivery}
        if self._secret is not None:
            digest = hmac.new(self._secret, digestmod=hashlib.sha256)
            for piece in body.pieces():
                digest.update(piece)
            headers["X-Signature-256"] = f"sha256={digest.hexdigest()}"
        return post(self._url, body, headers, limit_s=_PATIENCE_S)


def _pieces(message: Message) -> Iterator[bytes]:
    head = _encode({"event": message.event, "incident": message.incidents[0]})
    yield head[:-1] + b',"incidents":'
    yield from encoded_pieces(message.incidents, lambda incident: incident)
    yield b',"delivery":' + _encode(message.delivery) + b"}"


def outcome_of(answer: Answer) -> Outcome:
    """Return what an answer means."""
    status = answer.status
    return Outcome(
        accepted=200 <= status < 300,
        said=answer.said,
        refused=300 <= status < 500 and status not in (408, 425, 429),
        retry_after_s=answer.retry_after_s,
    )
