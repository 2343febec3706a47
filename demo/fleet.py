"""A fleet of devices that say what they do, and now and then what goes wrong."""

from __future__ import annotations

import contextlib
import json
import random
import threading
import time
from collections.abc import Callable

from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

__all__ = ["Fleet"]

_SENDERS = ("addon-1", "addon-2", "gateway-north", "gateway-south", "worker-7")
_SAYINGS = (
    ("debug", "heartbeat, queue is empty"),
    ("debug", "configuration is unchanged"),
    ("info", "job {n} taken"),
    ("info", "job {n} done in {t} s"),
    ("info", "synchronised 3 files"),
    ("info", "certificate is good for 61 days"),
    ("warning", "queue is {n} jobs long"),
    ("warning", "clock is off by {t} s"),
    ("error", "job {n} failed: the compiler was killed for its memory"),
    ("critical", "disk is full, nothing more is taken"),
)
_WEIGHTS = (20, 8, 30, 30, 10, 5, 6, 4, 3, 0.4)
_NOTICES = ("Maintenance tonight from 22:00", "worker-7 was replaced", "Quota raised to 200 jobs")


class Fleet:
    """Uploads from a thread until the end."""

    def __init__(self, url: str) -> None:
        self._url = f"ws{url.removeprefix('http')}/ws"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        choose = random.Random(3)
        while not self._stop.wait(0.5):
            with (
                contextlib.suppress(OSError, TimeoutError, WebSocketException),
                connect(self._url) as socket,
            ):
                now = time.time()

                def send(message: str) -> None:
                    socket.send(message)
                    socket.recv(timeout=10)  # its answer

                past = sorted(now - choose.uniform(0, 600) for _ in range(150))
                for at in past:
                    self._say(choose, send, at)
                for number, text in enumerate(_NOTICES):
                    entry = {
                        "level": "info",
                        "time": now - 3600 * number,
                        "sender": "ops",
                        "message": text,
                    }
                    send(json.dumps({"action": "uploadNotifications", **entry}))
                while not self._stop.wait(choose.uniform(0.1, 0.9)):
                    self._say(choose, send, time.time())

    def _say(self, choose: random.Random, send: Callable[[str], None], at: float) -> None:
        ((level, text),) = choose.choices(_SAYINGS, _WEIGHTS)
        message = text.format(n=choose.randint(2, 900), t=round(choose.uniform(0.1, 9), 1))
        entry = {"level": level, "time": at, "sender": choose.choice(_SENDERS), "message": message}
        send(json.dumps({"action": "uploadLogs", **entry}))

    def __enter__(self) -> Fleet:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
