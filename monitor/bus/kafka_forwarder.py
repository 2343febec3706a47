"""Forwards the spool to Kafka: each topic in its own lane, so that none waits for another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from monitor.bus.kafka_client import ClientOptions
from monitor.bus.kafka_lane import Lane
from monitor.bus.kafka_troubles import Troubles
from monitor.bus.settings import KafkaSettings
from monitor.bus.spool_file import UNREADABLE, SpoolFile
from monitor.bus.spool_lock import GroupLock
from monitor.bus.spool_opening import set_aside_if_damaged

__all__ = ["Forwarder"]

logger = logging.getLogger("monitor.bus")

_LOOK_S = 0.5
_RETRY_S = 1.0
_STOP_S = 1.5


class Forwarder:
    """The thread that looks which topics have messages, and starts their lanes.

    Of the processes that share a spool, one forwards. ``refused`` is called with the number of
    messages that are too long for Kafka's clients.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        spool: Path,
        *,
        max_bytes: int,
        refused: Callable[[int], None],
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._max_bytes = max_bytes
        self._refused = refused
        self._stopping = threading.Event()
        self._news = threading.Event()
        self._thread: threading.Thread | None = None
        self._options = ClientOptions(settings)
        self._troubles = Troubles(settings)
        self._lanes: dict[str, Lane] = {}

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="kafka-forwarder", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Report new messages in the spool; callable in any thread."""
        self._news.set()

    def problems(self) -> list[str]:
        """Return what is wrong with Kafka, its topics or the spool."""
        return self._troubles.problems()

    def stop(self, timeout_s: float) -> None:
        """Stop; unacknowledged messages stay in the spool. Blocks up to ``timeout_s``."""
        self._stopping.set()
        self._news.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        lock = GroupLock(self._spool, "", "forwarder")
        try:
            while not self._stopping.is_set():
                try:
                    if lock.acquire():
                        self._watch()
                except (*UNREADABLE, OSError) as error:
                    self._troubles.spool("", f"cannot read the spool: {error}")
                self._stopping.wait(_RETRY_S)
        finally:
            lanes = list(self._lanes.values())
            for lane in lanes:
                lane.stop()
            for lane in lanes:
                lane.join(_STOP_S)
            lock.release()

    def _watch(self) -> None:
        """Start the lanes of new topics, and wake those that have messages."""
        file = SpoolFile(self._spool, max_bytes=self._max_bytes)
        try:
            while not self._stopping.is_set():
                self._news.clear()
                topics = file.waiting_topics()
                self._troubles.recovered("")
                for topic in topics:
                    if topic not in self._lanes:
                        self._lanes[topic] = self._lane(topic)
                    self._lanes[topic].wake()
                self._news.wait(_LOOK_S)
        except UNREADABLE as error:
            set_aside_if_damaged(file, error)
            raise
        finally:
            file.close()

    def _lane(self, topic: str) -> Lane:
        return Lane(
            topic,
            self._settings,
            self._spool,
            max_bytes=self._max_bytes,
            options=self._options,
            troubles=self._troubles,
            refused=self._refused,
        )
