"""The options of all clients of Kafka, and what is wrong if they cannot work."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient

from monitor.bus.kafka_decoding import bound_decoding
from monitor.bus.kafka_receiving import bound_receiving
from monitor.bus.settings import KafkaSettings
from monitor.errors import MonitorError, SettingError, UnavailableError
from monitor.libraries import package_of

__all__ = [
    "FAILURES",
    "REQUEST_MS",
    "AddressError",
    "ClientOptions",
    "TopicError",
    "close_producer",
    "describe",
    "describe_codec",
    "make_client",
    "probe",
    "reach",
]

# kafka-python logs every attempt. The bus logs a failure once.
logging.getLogger("kafka").setLevel(logging.CRITICAL)

bound_receiving()
bound_decoding()

REQUEST_MS = 10_000
_BOOTSTRAP_MS = 5000
_REACH_S = 3.0
# The largest answer that is read into memory. A consumer reads up to 8 MiB of messages at a time,
# or one that is larger.
_MAX_ANSWER_BYTES = 67_108_864

FAILURES = (kafka_errors.KafkaError, MonitorError, OSError, ValueError, AssertionError)
"""What the clients raise if Kafka, its configuration or ours is at fault."""

_PLAIN: dict[type[Exception], str] = {
    kafka_errors.TopicAuthorizationFailedError: "not authorized for the topic",
    kafka_errors.GroupAuthorizationFailedError: "not authorized for the group (aggregation.group)",
    kafka_errors.ClusterAuthorizationFailedError: "not authorized to write to any topic",
    kafka_errors.UnknownTopicOrPartitionError: "it does not exist",
    kafka_errors.NotEnoughReplicasError: (
        "no acknowledgement; the broker may throttle this client (a quota), or a partition has no"
        " leader or fewer replicas in sync than min.insync.replicas"
    ),
    kafka_errors.SaslAuthenticationFailedError: "Kafka rejected the credentials",
    kafka_errors.InvalidReceiveError: (
        "the answer is too long; is this Kafka, and does security_protocol match?"
    ),
}
# Named by kafka-python's texts: "Libraries for lz4 compression codec not found".
_CODECS = {"snappy": "snappy", "lz4": "lz4", "zstd": "zstandard"}


class AddressError(kafka_errors.KafkaTimeoutError):  # type: ignore[misc]
    """An address of Kafka does not work; the text says which, and why."""


class TopicError(UnavailableError):
    """A topic cannot be used; the others can."""

    def __init__(self, topic: str, problem: str) -> None:
        super().__init__("kafka", f"topic {topic}: {problem}")


class ClientOptions:
    """The options that every client of kafka-python gets."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        # Shared, so that its token serves all logins.
        self._tokens: Any = None

    def __call__(self) -> dict[str, Any]:
        """Return the options, with the secrets that the files have now.

        May block for some seconds. Raises SettingError if a file cannot be read, and
        UnavailableError without a token.
        """
        settings = self._settings
        options: dict[str, Any] = {
            "bootstrap_servers": settings.bootstrap_servers,
            "client_id": "recodex-monitor",
            "security_protocol": settings.security_protocol,
            "bootstrap_timeout_ms": _BOOTSTRAP_MS,
            "request_timeout_ms": REQUEST_MS,
            "receive_message_max_bytes": _MAX_ANSWER_BYTES,
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
            options["sasl_mechanism"] = settings.sasl_mechanism
            if settings.sasl_mechanism == "OAUTHBEARER":
                options["sasl_oauth_token_provider"] = self._provider()
            else:
                options["sasl_plain_username"] = settings.sasl_plain_username
                options["sasl_plain_password"] = settings.password()
        return options

    def _provider(self) -> Any:
        if self._tokens is None:
            # Imports an HTTP client, which only this mechanism needs.
            from monitor.bus.kafka_tokens import token_provider

            self._tokens = token_provider(self._settings)
        # A client hides why it has no token.
        self._tokens.token()
        return self._tokens


def make_client(kind: Callable[..., Any], options: ClientOptions, **more: Any) -> Any:
    """Return a client of a kind, such as KafkaConsumer, connected; raises FAILURES.

    A failed attempt leaves nothing behind. In kafka-python 3.0.12 it would leave sockets, and a
    thread that runs until the process ends.
    """
    made: list[Any] = []

    def connections(**config: Any) -> Any:
        made.append(KafkaNetClient(**config))
        return made[-1]

    try:
        return kind(**options(), **more, kafka_client=connections)
    except BaseException:
        for each in made:
            each.close()
        raise


def close_producer(producer: Any, *, limit_s: float = 0.0) -> None:
    """Close a producer; what Kafka does not acknowledge in ``limit_s`` is never sent.

    kafka-python 3.0.12 waits for acknowledgements first. Where they do not come it raises, and the
    thread keeps sending.
    """
    try:
        producer.close(timeout=limit_s)
    except kafka_errors.KafkaError:
        producer.flush = lambda timeout: None
        producer.close(timeout=0)


def probe(host: str, port: int) -> str | None:
    """Connect to an address and return what is wrong with it, or None; blocks for 3 s at most.

    Resolving the name may take longer.
    """
    try:
        socket.create_connection((host, port), timeout=_REACH_S).close()
    except socket.gaierror:
        return "the host name does not resolve"
    except UnicodeError:
        return "the host name is invalid"
    except ConnectionRefusedError:
        return "connection refused"
    except TimeoutError:
        return f"no answer in {_REACH_S:g} s"
    except OSError as error:
        return (error.strerror or type(error).__name__).lower()
    return None


def reach(settings: KafkaSettings) -> None:
    """Raise AddressError unless one of the servers accepts connections.

    Call it before creating a client: a client that cannot connect blocks longer and leaves open
    sockets to the garbage collector.
    """
    problems: dict[str, list[str]] = {}
    for server in settings.bootstrap_servers:
        host, _, port = server.rpartition(":")
        problem = probe(host.strip("[]"), int(port))
        if problem is None:
            return
        problems.setdefault(problem, []).append(server)
    texts = [f"{', '.join(servers)}: {problem}" for problem, servers in problems.items()]
    raise AddressError(f"cannot connect to Kafka at {'; '.join(texts)}")


def describe(error: BaseException, settings: KafkaSettings) -> str:
    """Return a short description of an error; kafka-python's texts contain no secrets."""
    servers = ", ".join(settings.bootstrap_servers)
    if isinstance(error, AddressError):
        return str(error.args[0])
    if isinstance(error, SettingError):
        return str(error.under("kafka"))
    if isinstance(error, UnavailableError):
        return error.problem
    if isinstance(error, kafka_errors.KafkaTimeoutError):
        # The client raises the same error if the broker rejected it.
        return (
            f"Kafka at {servers} accepts connections but does not respond; it may hang, or"
            " security_protocol, TLS or the credentials may be wrong"
        )
    if isinstance(error, kafka_errors.UnsupportedCodecError):
        return describe_codec(str(error))
    for kind, text in _PLAIN.items():
        if isinstance(error, kind):
            return text
    lines = str(error).splitlines()
    detail = lines[0][:200] if lines else ""
    return f"Kafka at {servers}: {type(error).__name__}{': ' + detail if detail else ''}"


def describe_codec(text: str) -> str:
    """Return what to install for a codec that kafka-python names in ``text``."""
    for codec, module in _CODECS.items():
        if codec in text:
            return (
                f"messages are compressed with {codec}, which needs the Python module {module};"
                f" install {package_of(module)} and restart"
            )
    return f"messages are compressed with an unknown codec: {text[:100]}"
