"""Topics of Kafka: whether they exist, how they are created, which there are. Blocks."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from kafka import errors as kafka_errors
from kafka.admin import KafkaAdminClient, NewTopic

from monitor.bus.kafka_client import (
    FAILURES,
    REQUEST_MS,
    AddressError,
    ClientOptions,
    TopicError,
    describe,
    make_client,
    probe,
    reach,
)
from monitor.bus.settings import KafkaSettings
from monitor.errors import UnavailableError
from monitor.log_limits import RateLimitedLog
from monitor.settings import address_text
from monitor.validation import printable

__all__ = ["admin_client", "ensure_topic", "list_topics"]

logger = logging.getLogger("monitor.bus")
# Of a cluster that only some addresses of work.
_partial = RateLimitedLog(logger, lines=1, period_s=600.0)


def ensure_topic(
    settings: KafkaSettings,
    options: ClientOptions,
    topic: str,
    *,
    configs: Mapping[str, str] | None = None,
) -> bool:
    """Create ``topic`` if it is missing and ``create_topics`` is on; return whether it did.

    ``configs`` are topic-level settings of Kafka for a topic that is created.

    Raises AddressError if Kafka cannot be reached, TopicError if the topic is missing or may not
    be used, and another of FAILURES if Kafka rejects a request.
    """
    with admin_client(settings, options) as admin:
        (found,) = admin.describe_topics([topic])
        error = kafka_errors.for_code(found["error_code"])
        if error is kafka_errors.UnknownTopicOrPartitionError:
            if not settings.create_topics:
                raise TopicError(topic, "it does not exist, and create_topics is off")
            _create(admin, settings, topic, configs or {})
            return True
        if error is kafka_errors.TopicAuthorizationFailedError:
            raise TopicError(topic, "not authorized to use it")
        if error is not kafka_errors.NoError and not issubclass(error, kafka_errors.RetriableError):
            raise TopicError(topic, f"Kafka says {error.__name__}")
    return False


def _create(admin: Any, settings: KafkaSettings, topic: str, configs: Mapping[str, str]) -> None:
    new = NewTopic(
        topic, settings.partitions, settings.replication_factor, topic_configs=dict(configs)
    )
    try:
        # Another daemon may have created it in the meantime.
        with contextlib.suppress(kafka_errors.TopicAlreadyExistsError):
            admin.create_topics([new], timeout_ms=REQUEST_MS)
            logger.info("created the topic %s with %d partitions", topic, settings.partitions)
    except kafka_errors.AuthorizationError:
        raise TopicError(topic, "it does not exist, and creating it is not authorized") from None
    except kafka_errors.BrokerResponseError as error:
        problem = f"it does not exist, and Kafka does not create it: {type(error).__name__}"
        raise TopicError(topic, problem) from None


def list_topics(settings: KafkaSettings) -> list[str]:
    """Return the names of Kafka's topics; raise UnavailableError if a request fails."""
    try:
        with admin_client(settings, ClientOptions(settings)) as admin:
            return sorted(name for name in admin.list_topics() if not name.startswith("__"))
    except FAILURES as error:
        raise UnavailableError("kafka", describe(error, settings)) from None


@contextlib.contextmanager
def admin_client(settings: KafkaSettings, options: ClientOptions) -> Iterator[Any]:
    """Return a client of Kafka's own requests, after looking at the addresses."""
    reach(settings)
    admin = make_client(KafkaAdminClient, options)
    try:
        _resolve(admin, settings)
        yield admin
    except (kafka_errors.KafkaConnectionError, kafka_errors.KafkaTimeoutError) as error:
        if not isinstance(error, AddressError):
            _look_at_listeners(admin, settings)
        raise
    finally:
        admin.close()


def _resolve(admin: Any, settings: KafkaSettings) -> None:
    """Look up the names that the brokers advertise: clients use these, not ours."""
    brokers = admin._client.cluster.brokers()
    problems = []
    for broker in brokers:
        try:
            socket.getaddrinfo(broker.host, broker.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            problems.append(_listener(broker, "which does not resolve"))
    if problems and len(problems) == len(brokers):
        raise AddressError(_advertised(settings, problems))
    if problems:
        _partial.warning("brokers", "%s", _advertised(settings, problems))


def _look_at_listeners(admin: Any, settings: KafkaSettings) -> None:
    """Raise AddressError if a broker cannot be reached where it says that it is."""
    problems = []
    for broker in admin._client.cluster.brokers():
        problem = probe(broker.host, broker.port)
        if problem is not None:
            problems.append(_listener(broker, problem))
    if problems:
        raise AddressError(_advertised(settings, problems)) from None


def _listener(broker: Any, problem: str) -> str:
    host = printable(broker.host[:255])
    return f"broker {broker.node_id} as {address_text((host, broker.port))}: {problem}"


def _advertised(settings: KafkaSettings, problems: list[str]) -> str:
    servers = ", ".join(settings.bootstrap_servers)
    return f"Kafka at {servers} advertises {'; '.join(problems)} (advertised.listeners)"
