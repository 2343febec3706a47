"""What keeps topics of the outbox from Kafka: each has its own trouble, or all have the same."""

from __future__ import annotations

import logging
import threading

from kafka import errors as kafka_errors

from monitor.bus.kafka_client import TopicError, describe
from monitor.bus.settings import KafkaSettings
from monitor.errors import MonitorError
from monitor.log_limits import OutageLog

__all__ = ["Troubles"]

logger = logging.getLogger("monitor.bus")

_OUTCOME = "messages wait in the spool"
# Of Kafka as a whole, not of a topic.
_GENERAL = (
    kafka_errors.KafkaConnectionError,
    kafka_errors.KafkaTimeoutError,
    kafka_errors.NodeNotReadyError,
    kafka_errors.SaslAuthenticationFailedError,
    MonitorError,
    OSError,
)


class Troubles:
    """The troubles by topic; methods are called in any thread.

    A trouble of Kafka itself, which all topics have, is logged once.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._general = OutageLog(logger, outcome=_OUTCOME)
        self._affected: set[str] = set()
        self._topics: dict[str, OutageLog] = {}

    def failed(self, topic: str, error: BaseException) -> None:
        """Report an error of a topic."""
        if isinstance(error, TopicError):
            self._fail(topic, error.problem)
        elif isinstance(error, _GENERAL):
            self.spool(topic, describe(error, self._settings))
        else:
            self._fail(topic, f"topic {topic}: {describe(error, self._settings)}")

    def spool(self, topic: str, problem: str) -> None:
        """Report a problem that is not the topic's."""
        with self._lock:
            self._affected.add(topic)
            self._topics.pop(topic, None)
            self._general.failed(problem)

    def _fail(self, topic: str, problem: str) -> None:
        with self._lock:
            self._leave(topic)
            outage = self._topics.setdefault(topic, OutageLog(logger, outcome=_OUTCOME))
            outage.failed(problem)

    def recovered(self, topic: str) -> None:
        """Report that Kafka took messages of the topic, or that it has none."""
        with self._lock:
            outage = self._topics.pop(topic, None)
            if outage is not None:
                outage.recovered(f"forwarding the topic {topic} to Kafka resumed")
            self._leave(topic)

    def _leave(self, topic: str) -> None:
        if topic in self._affected:
            self._affected.discard(topic)
            if not self._affected:
                self._general.recovered("forwarding to Kafka resumed")

    def problems(self) -> list[str]:
        """Return what is wrong at present."""
        with self._lock:
            general = [self._general.problem] if self._general.problem else []
            return general + [outage.problem for outage in self._topics.values() if outage.problem]
