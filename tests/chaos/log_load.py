"""Uploaders of log lines and notifications that repeat until they are answered, and a follower."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import zmq
import zmq.asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.chaos.findings import Finding

__all__ = ["Instance", "LogLoad"]

_ANSWER_S = 8.0
_KINDS = {"logs": "uploadLogs", "notifications": "uploadNotifications"}
_PASSING = {"unavailable", "rate-limited"}


@dataclass(frozen=True, slots=True)
class Instance:
    """Where uploads go: a WebSocket, or a ZeroMQ address, and what time it is there."""

    url: str
    now: Callable[[], float]
    token: str


@dataclass
class _Book:
    """What was sent, by the text of each entry, and what was answered."""

    sent: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    refused: set[str] = field(default_factory=set)
    """Named as rejected in the answer."""
    uploads: int = 0
    answered: int = 0
    tries: int = 0
    repeats: int = 0


class LogLoad:
    """Uploads from several senders at once, each again with its ``upload_id`` until answered."""

    def __init__(
        self,
        seed: int,
        *,
        websockets: Sequence[Instance],
        zeromqs: Sequence[Instance],
        pace_s: float,
    ) -> None:
        self._random = random.Random(seed)
        self._websockets = websockets
        self._zeromqs = zeromqs
        self._pace_s = pace_s
        self._finishing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._context = zmq.asyncio.Context()
        self.books: Mapping[str, _Book] = {kind: _Book() for kind in _KINDS}
        self.problems: list[str] = []
        self.followed = 0

    def start(self, *, senders: int) -> None:
        """Begin; to be called in the loop."""
        for number in range(senders):
            kind = "notifications" if number % 4 == 3 else "logs"
            over_zeromq = number % 5 == 4
            self._tasks.append(
                asyncio.create_task(
                    self._guard(self._upload(f"device-{number}", kind, over_zeromq))
                )
            )
        for instance in self._websockets:
            self._tasks.append(asyncio.create_task(self._guard(self._follow(instance))))

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            self.problems.append(f"{type(error).__name__}: {error}")

    async def _upload(self, sender: str, kind: str, over_zeromq: bool) -> None:
        book = self.books[kind]
        line: _Line = _ZeroMqLine(self._context) if over_zeromq else _WebSocketLine()
        number = 0
        try:
            while not self._finishing.is_set():
                number += 1
                upload_id = f"{sender}-{number}"
                instance = self._choose(over_zeromq)
                texts = [f"{upload_id}-{i}" for i in range(self._random.randint(1, 8))]
                message = {
                    "action": _KINDS[kind],
                    "sender": sender,
                    "upload_id": upload_id,
                    kind: [self._entry(text, sender, instance.now()) for text in texts],
                }
                book.uploads += 1
                book.sent |= set(texts)
                answer = await self._until_answered(line, instance, message, book)
                if answer is None:
                    continue
                book.answered += 1
                refused = {texts[item["index"]] for item in answer["rejected"]}
                book.refused |= refused
                book.acknowledged |= set(texts) - refused
                if answer["accepted"] != len(texts) - len(refused):
                    self.problems.append(f"{upload_id}: accepted {answer['accepted']} of {texts}")
                if self._random.random() < 0.2:
                    await self._repeat(line, message, answer, book)
                await asyncio.sleep(self._random.uniform(0.2, 1.8) * self._pace_s)
        finally:
            await line.close()

    def _choose(self, over_zeromq: bool) -> Instance:
        return self._random.choice(self._zeromqs if over_zeromq else self._websockets)

    def _entry(self, text: str, sender: str, now: float) -> dict[str, Any]:
        entry = {"level": "info", "time": now, "sender": sender, "message": text}
        dice = self._random.random()
        if dice < 0.02:
            entry["level"] = "shout"
        elif dice < 0.04:
            entry["time"] = now + 86400 * 2
        return entry

    async def _until_answered(
        self, line: _Line, instance: Instance, message: dict[str, Any], book: _Book
    ) -> dict[str, Any] | None:
        """Send it, again and again, even to other instances, until it is committed."""
        pause_s = 0.1
        while True:
            book.tries += 1
            try:
                answer = await line.ask(instance, message)
            except (OSError, EOFError, TimeoutError, WebSocketException, zmq.ZMQError):
                await line.close()
                answer = None
            if answer is not None:
                if answer.get("status") == "ok":
                    return answer
                code = answer.get("error", {}).get("code")
                if code not in _PASSING:
                    self.problems.append(f"{message['upload_id']}: {answer}")
                    return None
            await asyncio.sleep(pause_s * self._random.uniform(0.5, 1.5))
            pause_s = min(pause_s * 2, 1.0)
            if isinstance(line, _WebSocketLine):
                instance = self._random.choice(self._websockets)

    async def _repeat(
        self, line: _Line, message: dict[str, Any], answer: dict[str, Any], book: _Book
    ) -> None:
        """Send what was answered once more: the same answer, and nothing stored."""
        book.repeats += 1
        again = await self._until_answered(
            line, self._choose(isinstance(line, _ZeroMqLine)), message, book
        )
        if again is not None and {**again, "id": 0} != {**answer, "id": 0}:
            self.problems.append(f"{message['upload_id']} repeated: {again}, before: {answer}")

    async def _follow(self, instance: Instance) -> None:
        """Follow the live tail; on no connection anything may come twice."""
        while not self._finishing.is_set():
            seen: set[str] = set()
            with contextlib.suppress(OSError, EOFError, TimeoutError, WebSocketException):
                async with _open(instance) as connection:
                    await connection.send(json.dumps({"action": "followLogs", "id": 1}))
                    async for text in connection:
                        self._take(json.loads(text), seen, instance)
            await asyncio.sleep(0.3)

    def _take(self, message: dict[str, Any], seen: set[str], instance: Instance) -> None:
        for entry in message.get("logs", ()):
            self.followed += 1
            if entry["message"] in seen:
                self.problems.append(f"{instance.url} tailed twice: {entry['message']}")
            seen.add(entry["message"])

    async def finish(self, limit_s: float) -> None:
        """Let every upload under way be answered, and stop."""
        self._finishing.set()
        uploads = self._tasks[: len(self._tasks) - len(self._websockets)]
        _, late = await asyncio.wait(uploads, timeout=limit_s)
        if late:
            self.problems.append(f"{len(late)} senders got no answer in {limit_s:g} s")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._context.destroy(linger=0)

    def findings(self, stored: Mapping[str, Counter[str]]) -> list[Finding]:
        """Judge; ``stored`` says how often the store has each text, for each kind."""
        found = [
            upload_finding(
                kind,
                sent=book.sent,
                acknowledged=book.acknowledged,
                refused=book.refused,
                stored=stored[kind],
                counts=counts,
            )
            for kind, book in self.books.items()
            for counts in [
                f"{book.answered} of {book.uploads} uploads acknowledged in {book.tries} tries,"
                f" {book.repeats} sent again afterwards"
            ]
        ]
        answers = Finding(
            "answers are right, repeated ones the same, no tail says anything twice",
            f"{self.followed} entries followed",
            tuple(self.problems),
        )
        return [*found, answers]


def upload_finding(
    kind: str,
    *,
    sent: set[str],
    acknowledged: set[str],
    refused: set[str],
    stored: Counter[str],
    counts: str,
) -> Finding:
    """Compare what was acknowledged with what is stored: once, and nothing that was refused."""
    problems = [f"acknowledged, not stored: {text}" for text in sorted(acknowledged - set(stored))]
    problems += [f"stored {n} times: {text}" for text, n in sorted(stored.items()) if n > 1]
    problems += [f"refused, but stored: {text}" for text in sorted(refused & set(stored))]
    problems += [f"stored, but never sent: {text}" for text in sorted(set(stored) - sent)]
    return Finding(
        f"acknowledged {kind} are stored, once",
        f"{len(acknowledged)} entries; {counts}; {len(refused)} entries refused",
        tuple(problems),
    )


def _open(instance: Instance) -> connect:
    return connect(
        instance.url,
        additional_headers={"Authorization": f"Bearer {instance.token}"},
        compression=None,
        open_timeout=5,
        close_timeout=0.5,
        ping_interval=5,
        ping_timeout=5,
    )


class _Line:
    """A connection that is made where it is needed."""

    async def ask(self, instance: Instance, message: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class _WebSocketLine(_Line):
    def __init__(self) -> None:
        self._connection: ClientConnection | None = None
        self._url = ""
        self._id = 0

    async def ask(self, instance: Instance, message: dict[str, Any]) -> dict[str, Any]:
        if self._connection is None or self._url != instance.url:
            await self.close()
            self._connection, self._url = await _open(instance), instance.url
        self._id += 1
        async with asyncio.timeout(_ANSWER_S):
            await self._connection.send(json.dumps({**message, "id": self._id}))
            while True:
                answer: dict[str, Any] = json.loads(await self._connection.recv())
                if answer.get("id") == self._id:
                    return answer

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError, EOFError, WebSocketException):
                await connection.close()


class _ZeroMqLine(_Line):
    def __init__(self, context: zmq.asyncio.Context) -> None:
        self._context = context
        self._socket: zmq.asyncio.Socket | None = None
        self._id = 0

    async def ask(self, instance: Instance, message: dict[str, Any]) -> dict[str, Any]:
        if self._socket is None:
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.connect(instance.url)
        self._id += 1
        asked = json.dumps({**message, "id": self._id, "token": instance.token}).encode()
        async with asyncio.timeout(_ANSWER_S):
            await self._socket.send(asked)
            while True:
                answer: dict[str, Any] = json.loads(await self._socket.recv())
                if answer.get("id") == self._id:
                    return answer

    async def close(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close(linger=0)
