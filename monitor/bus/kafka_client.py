"""Options, topics and error descriptions for the producer, consumers and the admin client."""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import Any

from kafka import errors as kafka_errors
from kafka.admin import KafkaAdminClient, NewTopic

from monitor.bus.settings import KafkaSettings
from monitor.errors import UnavailableError

__all__ = ["BOOTSTRAP_MS", "client_options", "describe", "ensure_topics", "list_topics", "reach"]

# kafka-python logs every attempt. The bus logs a failure once.
logging.getLogger("kafka").setLevel(logging.CRITICAL)

BOOTSTRAP_MS = 5000
_REQUEST_MS = 10_000
_REACH_S = 3.0


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Return the options that every client of kafka-python gets."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": "recodex-monitor",
        "security_protocol": settings.security_protocol,
        "bootstrap_timeout_ms": BOOTSTRAP_MS,
        "request_timeout_ms": _REQUEST_MS,
        # After an outage, the client reconnects within this time.
        "reconnect_backoff_max_ms": 2000,
    }
    if "SSL" in settings.security_protocol:
        options |= {
            "ssl_cafile": settings.ssl_cafile,
            "ssl_certfile": settings.ssl_certfile,
            "ssl_keyfile": settings.ssl_keyfile,
            "ssl_check_hostname": settings.ssl_check_hostname,
        }
    if "SASL" in settings.security_protocol:
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_plain_username,
            "sasl_plain_password": settings.password(),
        }
    return options


class _UnreachableError(kafka_errors.KafkaTimeoutError):  # type: ignore[misc]
    """None of the servers accepts connections."""


def reach(settings: KafkaSettings) -> None:
    """Raise KafkaTimeoutError unless one of the servers accepts connections.

    Call it before creating a client: a client that cannot connect blocks longer and leaves open
    sockets to the garbage collector.
    """
    for server in settings.bootstrap_servers:
        host, _, port = server.rpartition(":")
        with contextlib.suppress(OSError):
            socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_S).close()
            return
    raise _UnreachableError


def ensure_topics(settings: KafkaSettings, topics: set[str]) -> set[str]:
    """Create missing ``topics`` if ``create_topics`` is on; return those that exist.

    Raises kafka_errors.KafkaError if Kafka is unavailable or rejects a request.
    """
    admin = KafkaAdminClient(**client_options(settings))
    try:
        missing = topics - set(admin.list_topics())
        if missing and settings.create_topics:
            for topic in sorted(missing):
                new = NewTopic(topic, settings.partitions, settings.replication_factor)
                # Another daemon may have created it in the meantime.
                with contextlib.suppress(kafka_errors.TopicAlreadyExistsError):
                    admin.create_topics([new], timeout_ms=_REQUEST_MS)
            missing = set()
        return topics - missing
    finally:
        admin.close()


def list_topics(settings: KafkaSettings) -> list[str]:
    """Return the names of Kafka's topics; raise UnavailableError if a request fails."""
    try:
        reach(settings)
        admin = KafkaAdminClient(**client_options(settings))
        try:
            return sorted(name for name in admin.list_topics() if not name.startswith("__"))
        finally:
            admin.close()
    except (kafka_errors.KafkaError, OSError, ValueError, AssertionError) as error:
        raise UnavailableError("kafka", describe(error, settings)) from None


def describe(error: BaseException, settings: KafkaSettings) -> str:
    """Return a short description of an error; kafka-python's texts contain no secrets."""
    servers = ", ".join(settings.bootstrap_servers)
    if isinstance(error, _UnreachableError):
        return f"cannot connect to Kafka at {servers}"
    if isinstance(error, kafka_errors.KafkaTimeoutError):
        # The client raises the same error if the broker rejected it.
        return (
            f"Kafka at {servers} accepts connections but does not respond; it may hang, or"
            " security_protocol, TLS or the credentials may be wrong"
        )
    lines = str(error).splitlines()
    detail = lines[0][:200] if lines else ""
    return f"Kafka at {servers}: {type(error).__name__}{': ' + detail if detail else ''}"
