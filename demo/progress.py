"""Jobs whose progress a broker sends: some go well, some do not compile, some never end."""

from __future__ import annotations

import random
import threading

import zmq

__all__ = ["Progress"]


class Progress:
    """Plays jobs, a few at a time, until the end."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        choose = random.Random(11)
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(self._uri)
            jobs: list[list[tuple[str, ...]]] = []
            number = 4200
            while not self._stop.wait(choose.uniform(0.03, 0.3)):
                while len(jobs) < 4:
                    number += 1
                    jobs.append(_job(choose, f"student_{number}"))
                job = choose.choice(jobs)
                frames = job.pop(0)
                with_timeout = socket.poll(1000, zmq.POLLOUT)
                if with_timeout:
                    socket.send_multipart([frame.encode() for frame in frames])
                if not job:
                    jobs.remove(job)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)


def _job(choose: random.Random, channel: str) -> list[tuple[str, ...]]:
    tasks = choose.randint(6, 40)
    compiles = choose.random() > 0.15
    messages: list[tuple[str, ...]] = [(channel, "DOWNLOADED"), (channel, "STARTED")]
    for task in range(tasks):
        if not compiles:
            state = "FAILED" if task == 0 else "SKIPPED"
        else:
            state = "FAILED" if choose.random() < 0.08 else "COMPLETED"
        messages.append((channel, "TASK", f"test_{task:02}", state))
    return [*messages, (channel, "ENDED"), (channel, "UPLOADED"), (channel, "FINISHED")]
