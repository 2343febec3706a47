"""Assembles the daemon: its parts, and the services that they share.

A part that is off is not imported; a service is created when the first part requests it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from monitor.bus import Bus, create_bus, open_topic
from monitor.daemon.config import Config, LoadedConfig
from monitor.daemon.supervision import asked_to_end
from monitor.errors import DefectError, MonitorError, SettingError, all_of
from monitor.libraries import needed_by
from monitor.metrics import Metric
from monitor.part import Part, State
from monitor.sqlite.file import OpenFile
from monitor.store import Store, open_store
from monitor.tokens import TokenFile
from monitor.web.context import DaemonStatus, PartsStatus
from monitor.web.settings import ApiSettings

if TYPE_CHECKING:
    from monitor.alerts.jobs import Jobs
    from monitor.logs.reader import LogReader

__all__ = [
    "PARTS",
    "Service",
    "Services",
    "check",
    "check_parts",
    "make_parts",
]


class Service(Protocol):
    """A service that parts share; it is started before them and closed after them."""

    async def start(self) -> None:
        """Open it; an unavailable remote server is not an error."""

    async def close(self) -> None:
        """Flush and close; the caller limits the time."""

    def open_files(self) -> Sequence[OpenFile]:
        """Return the SQLite files that must stay at their paths."""


class Services:
    """The shared services, each created when the first part requests it."""

    def __init__(
        self, config: Config, *, stop: Callable[[str], None], status: DaemonStatus
    ) -> None:
        self.config = config
        self.status = status
        self.parts: Sequence[Part] = ()
        self.opened: list[Service] = []
        # The web part reads the file; all parts that check tokens share its content.
        self.tokens = TokenFile((config.api or ApiSettings()).tokens_file)
        # Stops the daemon, with a reason for the log.
        self.stop = stop
        self._store: Store | None = None
        self._bus: Bus | None = None

    def store(self) -> Store:
        """Return the store; the first call creates it."""
        if self._store is None:
            self._store = open_store(self.config.database)
            self.opened.append(self._store)
        return self._store

    def bus(self) -> Bus:
        """Return the bus; the first call creates it."""
        if self._bus is None:
            self._bus = create_bus(self.config.bus, self.config.kafka)
            self.opened.append(self._bus)
        return self._bus

    def prepare(self, config: Config) -> None:
        """Prepare what parts share of a new config, before they prepare their own settings."""
        api = config.api
        self.tokens.next = None if api is None else TokenFile(api.tokens_file)

    def states(self) -> dict[str, State]:
        """Return the states of the services in use, by section."""
        return {} if self._bus is None else {"bus": self._bus.state()}

    def metrics(self) -> Iterable[Metric]:
        """Return the metrics of the services in use."""
        return () if self._bus is None else self._bus.metrics()


def _relay(services: Services) -> Part | None:
    config = services.config
    if config.relay is None:
        return None
    from monitor.relay.part import Relay

    topic = None
    if config.relay.topic is not None and config.kafka is not None:
        topic = open_topic(config.kafka, config.relay.topic, configs=config.relay.topic_configs())
    return Relay(
        config.relay,
        websocket_uri=config.websocket_uri,
        zeromq_uri=config.zeromq_uri,
        stop=services.stop,
        topic=topic,
    )


def _probes(services: Services) -> Part | None:
    settings = services.config.probes
    if settings is None:
        return None
    from monitor.probes.part import Probes

    database = None
    if settings.source == "database":
        from monitor.probes.jobs_table import DatabaseJobs

        database = DatabaseJobs(services.store())
    return Probes(settings, services.bus(), database=database)


def _aggregation(services: Services) -> Part | None:
    if services.config.aggregation is None:
        return None
    from monitor.aggregation.part import Aggregation

    return Aggregation(services.config.aggregation, bus=services.bus(), store=services.store())


def _logs(services: Services) -> Part | None:
    if services.config.logs is None:
        return None
    from monitor.logs.part import Logs

    try:
        return Logs(services.config.logs, services.store(), tokens=services.tokens)
    except SettingError as error:
        raise error.under("logs") from None


def _cluster(services: Services) -> Part | None:
    if services.config.cluster is None:
        return None
    from monitor.cluster.part import Cluster

    return Cluster(services.config.cluster, store=services.store(), bus=services.bus())


def _alerts(services: Services) -> Part | None:
    config = services.config
    if config.alerts is None:
        return None
    from monitor.alerts.part import Alerts
    from monitor.daemon.known_jobs import NoJobs, ProbesJobs, TableJobs

    jobs: Jobs
    if config.probes is not None:
        jobs = ProbesJobs(lambda: _running(services, "probes"))
    elif config.database.url is not None:
        jobs = TableJobs(services.store())
    else:
        jobs = NoJobs()

    def connected() -> bool | None:
        relay = _running(services, "relay")
        return None if relay is None else relay.feed.up

    return Alerts(
        config.alerts,
        bus=services.bus(),
        store=services.store(),
        jobs=jobs,
        parts=services.status.states,
        connected=connected,
    )


def _running(services: Services, name: str) -> Any:
    return next((part for part in services.parts if part.name == name), None)


def _web(services: Services) -> Part | None:
    config = services.config
    if config.api is None:
        return None
    from monitor.bus.look import TopicLook
    from monitor.web.part import Web

    keeps = (
        config.probes,
        config.aggregation,
        config.cluster,
        config.logs,
        config.alerts,
        config.database.url,
    )
    return Web(
        config.api,
        tokens=services.tokens,
        parts=lambda: services.parts,
        status=services.status,
        store=services.store() if any(each is not None for each in keeps) else None,
        log_reader=_log_reader(services),
        topics=TopicLook(config.bus, config.kafka),
    )


def _log_reader(services: Services) -> LogReader | None:
    """Return a reader of the logs of other daemons in a shared PostgreSQL."""
    config = services.config
    if config.logs is not None or config.database.url is None:
        return None
    from monitor.logs.reader import LogReader

    try:
        return LogReader(services.store())
    except SettingError as error:
        raise error.under("logs") from None


# A part that is off is not imported.
PARTS: tuple[Callable[[Services], Part | None], ...] = (
    _relay,
    _probes,
    _aggregation,
    _cluster,
    _logs,
    _alerts,
    _web,
)


def make_parts(loaded: LoadedConfig, services: Services) -> Iterator[Part]:
    """Create the parts that are on, without opening anything; raises ConfigError."""
    for make in PARTS:
        name = make.__name__.lstrip("_")
        try:
            with needed_by(name):
                part = make(services)
        except SettingError as error:
            raise loaded.error(error) from None
        except MonitorError:
            raise
        except BaseException as error:  # whatever a library raises when it is loaded
            raise DefectError(f"{name} cannot be set up", error) from error
        if part is not None:
            yield part


async def check_parts(loaded: LoadedConfig, parts: Sequence[Part]) -> None:
    """Raise ConfigError with the errors of all parts that must not be started."""
    errors = []
    for part in parts:
        try:
            with needed_by(part.name):
                await part.check()
        except SettingError as error:
            errors.append(loaded.error(error.under(part.section or part.name)))
        except MonitorError:
            raise
        except BaseException as error:
            if asked_to_end(error, asyncio.current_task()):
                raise
            raise DefectError(f"{part.name} cannot be checked", error) from error
    if errors:
        raise all_of(errors)


async def check(loaded: LoadedConfig) -> list[str]:
    """Raise the errors of a daemon with this config before it binds or opens anything.

    Returns a line for each thing that it would leave out, such as a wrong job in a file.
    """
    services = Services(loaded.config, stop=lambda _: None, status=PartsStatus({}))
    parts: list[Part] = []
    try:
        for part in make_parts(loaded, services):
            parts.append(part)  # noqa: PERF402 - if one fails, those before it are closed
        await check_parts(loaded, parts)
        return [remark for part in parts for remark in part.remarks()]
    finally:
        for part in parts:
            await part.close()
        for service in reversed(services.opened):
            await service.close()
