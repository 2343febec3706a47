"""Jobs as a broker reports them, and readers of both protocols that follow them."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from dataclasses import dataclass, field

import zmq

from monitor.relay.client_position import Away
from tests.chaos.findings import Finding
from tests.relay.readers import Old, Recovering, number_of

__all__ = ["RelayLoad"]

_JOBS_AT_ONCE = 5
_MESSAGE_EVERY_S = 0.05
_MESSAGES = (100, 250)
_AGAIN_S = 1.5
# A relay that was stopped for seconds reads what a broker sent after its return together with
# what it sent before its loss, and learns of the loss after both.
_NEAR = 120
_FINISHED = 1 << 30  # its number, as the readers have it


@dataclass
class _Job:
    """A channel, how many messages are left, and who reads it."""

    channel: str
    left: int
    sent: int = 0
    said_again_at: float = 0.0
    readers: set[int] = field(default_factory=set)


class RelayLoad:
    """Brokers in a thread, readers in the loop; ``finish`` ends the jobs, and so the readers."""

    def __init__(self, seed: int, *, broker_url: str, url: str, readers: tuple[int, int]) -> None:
        self._random = random.Random(seed)
        self._url = broker_url
        self._readers_url = url
        self._count = readers
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._number = 0
        self._swap = threading.Event()
        self._finishing = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._speak, name="broker", daemon=True)
        self._tasks: list[asyncio.Task[None]] = []
        self.recovering: list[Recovering] = []
        self.old: list[Old] = []
        self.sent = 0
        self.problems: list[str] = []
        self.channels: set[str] = set()

    # The broker, in a thread of its own.

    def swap_broker(self) -> None:
        """Let the broker go, and another one come."""
        self._swap.set()

    def _speak(self) -> None:
        context = zmq.Context()
        broker = self._connect(context)
        try:
            while not self._stop.wait(_MESSAGE_EVERY_S):
                if self._swap.is_set():
                    self._swap.clear()
                    # What it has not said by now nobody hears.
                    broker.close(linger=0)
                    broker = self._connect(context)
                with self._lock:
                    self._say(broker)
        finally:
            context.destroy(linger=500)

    def _connect(self, context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
        # It does not wait for a relay: what it says meanwhile waits in its socket.
        broker = context.socket(zmq.DEALER)
        broker.setsockopt(zmq.SNDHWM, 0)
        broker.setsockopt(zmq.RECONNECT_IVL, 100)
        broker.connect(self._url)
        return broker

    def _say(self, broker: zmq.Socket[bytes]) -> None:
        if not self._finishing.is_set():
            for _ in range(_JOBS_AT_ONCE - sum(job.left > 0 for job in self._jobs.values())):
                self._begin()
        now = time.monotonic()
        for channel, job in list(self._jobs.items()):
            if self._finishing.is_set():
                job.left = 0
            if job.left > 0:
                text = f"{channel}|TASK|{job.sent}|COMPLETED"
                job.sent += 1
                job.left -= 1
            elif now - job.said_again_at < _AGAIN_S:
                continue
            else:
                # Again until all have heard it: some of it falls into gaps.
                if job.said_again_at and not job.readers:
                    del self._jobs[channel]
                    continue
                text = f"{channel}|FINISHED"
                job.said_again_at = now
            broker.send_multipart([part.encode() for part in text.split("|")])
            self.sent += 1

    def _begin(self) -> None:
        self._number += 1
        channel = f"job-{self._number}"
        self._jobs[channel] = _Job(channel, self._random.randint(*_MESSAGES))
        self.channels.add(channel)

    # The readers, in the loop.

    def start(self) -> None:
        """Begin; to be called in the loop."""
        self._thread.start()
        followers, old = self._count
        self._tasks = [
            asyncio.create_task(self._follow(number, recovering=number < followers))
            for number in range(followers + old)
        ]

    async def _follow(self, number: int, *, recovering: bool) -> None:
        while not self._finishing.is_set():
            job = self._choose(number)
            if job is None:
                await asyncio.sleep(0.1)
                continue
            try:
                if recovering:
                    reader = Recovering([job.channel])
                    self.recovering.append(reader)
                    await reader.follow(self._readers_url)
                else:
                    follower = Old(job.channel)
                    self.old.append(follower)
                    await follower.follow(self._readers_url)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
                self.problems.append(f"{job.channel}: {type(error).__name__}: {error}")
            finally:
                with self._lock:
                    job.readers.discard(number)

    def _choose(self, number: int) -> _Job | None:
        with self._lock:
            going = [job for job in self._jobs.values() if job.left > 0]
            if not going:
                return None
            job = self._random.choice(going)
            job.readers.add(number)
            return job

    async def finish(self, limit_s: float) -> None:
        """End all jobs and wait until every reader has heard of it."""
        self._finishing.set()
        _, late = await asyncio.wait(self._tasks, timeout=limit_s)
        for task in late:
            task.cancel()
        if late:
            self.problems.append(f"{len(late)} readers were not told of an end in {limit_s:g} s")
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def finish_all_again(self) -> None:
        """Finish every channel once more: a crash may have brought one back to life."""
        with self._lock:
            for channel in self.channels:
                self._jobs.setdefault(channel, _Job(channel, 0))

    def stop(self) -> None:
        """Let the broker go."""
        self._stop.set()
        self._thread.join(10)

    # What must be true.

    def histories(self, read: dict[str, list[str]]) -> dict[str, list[int]]:
        return {
            channel: [number_of(json.loads(text)) for text in texts]
            for channel, texts in read.items()
        }

    def findings(self, histories: dict[str, list[int]]) -> list[Finding]:
        """Judge what each reader received; ``histories`` are the relay's at the end."""
        problems = list(self.problems)
        holes = resets = resumed = connections = 0
        for reader in self.recovering:
            resumed += sum(isinstance(event, Away) for event in reader.events)
            for channel in reader.channels:
                try:
                    more_holes, more_resets = reader.check(
                        channel, from_its_beginning=False, near=_NEAR
                    )
                except AssertionError as error:
                    problems.append(str(error)[:600])
                    continue
                holes, resets = holes + more_holes, resets + more_resets
        whole = Finding(
            "recovering readers miss nothing unsaid",
            f"{len(self.recovering)} readings, {resumed} times resumed,"
            f" {holes} gaps and {resets} resets told",
            tuple(problems),
        )
        problems = []
        for follower in self.old:
            connections += len(follower.connections)
            problem = prefix_problem(follower, histories.get(follower.channel, []))
            if problem is not None:
                problems.append(problem)
        prefixes = Finding(
            "old readers get the history from its beginning, in order, none twice",
            f"{len(self.old)} readings over {connections} connections",
            tuple(problems),
        )
        return [whole, prefixes]


def prefix_problem(reader: Old, history: list[int]) -> str | None:
    """Return what is wrong with what a reader of the old protocol got, or None.

    Each connection gives the history from its beginning, as far as it lasted; what a crash took
    from the history was its end then. FINISHED, which is repeated, comes after all else.
    """
    history = [number for number in history if number != _FINISHED]
    known = set(history)
    for told in reader.connections:
        got = [number for number in told if number != _FINISHED]
        if told not in (got, [*got, _FINISHED]):
            return f"{reader.channel}: something after FINISHED: {told[-5:]}"
        kept = [number for number in got if number in known]
        lost = [number for number in got if number not in known]
        if kept != history[: len(kept)]:
            return f"{reader.channel}: got {kept[-5:]}, the history has {history[: len(kept)][-5:]}"
        if got != kept + lost or len(set(got)) != len(got):
            return f"{reader.channel}: out of order or twice: {got[-20:]}"
    if reader.finished is None:
        return f"{reader.channel}: never finished"
    return None
