"""An honest job during an attack: what a broker sends, and how long its readers wait for it."""

from __future__ import annotations

import itertools
import threading
import time
from typing import Any

from websockets.sync.client import connect

from tests.relay.broker import Broker

__all__ = ["Steady"]

_CHANNELS = 5
_PERIOD_S = 0.01
# A channel that has ended would be read to its end at once.
_numbers = itertools.count()


class Steady:
    """Sends a message to each channel in turn, while the ``with`` block runs; one reader each."""

    def __init__(self, websocket_port: int, zeromq_port: int) -> None:
        self.channels = [f"job-{next(_numbers)}" for _ in range(_CHANNELS)]
        self.delays_s: list[float] = []
        self.sent = 0
        self.received = 0
        self.problem = ""
        self._ended = threading.Event()
        self._port = websocket_port
        self._broker = Broker(f"tcp://127.0.0.1:{zeromq_port}")
        self._threads: list[threading.Thread] = []

    def percentile(self, share: float) -> float:
        """Return the delay (s) that ``share`` of the messages did not exceed."""
        delays = sorted(self.delays_s)
        return delays[min(int(len(delays) * share), len(delays) - 1)] if delays else 0.0

    def __enter__(self) -> Steady:
        ready = [threading.Event() for _ in self.channels]
        for channel, event in zip(self.channels, ready, strict=True):
            self._start(self._read, channel, event)
        for event in ready:
            assert event.wait(60), self.problem
        self._start(self._send)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in reversed(self._threads):
            thread.join(60)
        self._broker.close()

    def _start(self, target: Any, *args: Any) -> None:
        self._threads.append(threading.Thread(target=target, args=args, daemon=True))
        self._threads[-1].start()

    def _send(self) -> None:
        while not self._ended.wait(_PERIOD_S):
            channel = self.channels[self.sent % _CHANNELS]
            self._broker.send(channel, "TASK", f"{time.monotonic():.6f}", "COMPLETED")
            self.sent += 1
        for channel in self.channels:
            self._broker.send(channel, "FINISHED")

    def _read(self, channel: str, ready: threading.Event) -> None:
        try:
            with connect(f"ws://127.0.0.1:{self._port}/", compression=None) as client:
                client.send(channel)
                client.ping().wait(60)
                ready.set()
                while True:
                    text = str(client.recv(timeout=60))
                    if '"FINISHED"' in text:
                        return
                    at = float(text.partition('"task_id": "')[2].partition('"')[0])
                    self.delays_s.append(time.monotonic() - at)
                    self.received += 1
        except Exception as error:  # noqa: BLE001 - the test shows it
            self.problem = f"{channel}: {type(error).__name__}: {error}"
            ready.set()
