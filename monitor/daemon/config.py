"""Reads the YAML file into the settings of all parts; errors have line and key.

:func:`load` returns a complete, valid :class:`Config` or raises ConfigError, so that a reload
either replaces the config or changes nothing. For an unknown key the error suggests the nearest
known one.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from monitor.aggregation.settings import AggregationSettings
from monitor.alerts.settings import AlertsSettings
from monitor.bus.settings import BusSettings, KafkaSettings
from monitor.cluster.settings import ClusterSettings
from monitor.daemon.config_errors import is_address, setting_error
from monitor.daemon.logfile import LoggerSettings
from monitor.daemon.old_keys import OldKeys
from monitor.daemon.omissions import Omissions
from monitor.daemon.own_files import file_problems
from monitor.daemon.yaml_document import Document
from monitor.errors import ConfigError, SettingError, SettingPath, all_of, key_text
from monitor.logs.settings import LogsSettings
from monitor.probes.settings import ProbesSettings
from monitor.relay.settings import RelaySettings
from monitor.settings import Address, ListenAddress, Section, check_host, raise_all
from monitor.store.settings import DatabaseSettings
from monitor.web.settings import ApiSettings

__all__ = ["Config", "LoadedConfig", "load"]


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The config. A part runs if its section is present; the relay unless it is ``false``."""

    # where web pages subscribe, over WebSocket; "*" and "" mean all addresses, IPv4 and IPv6, and
    # a list of hosts means each
    websocket_uri: ListenAddress = ("127.0.0.1", 4567)
    # where brokers send, over ZeroMQ
    zeromq_uri: Address = ("127.0.0.1", 7894)
    logger: LoggerSettings = LoggerSettings()
    database: DatabaseSettings = DatabaseSettings()
    relay: RelaySettings | None = RelaySettings()
    bus: BusSettings = BusSettings()
    cluster: ClusterSettings | None = None
    kafka: KafkaSettings | None = None
    probes: ProbesSettings | None = None
    aggregation: AggregationSettings | None = None
    logs: LogsSettings | None = None
    alerts: AlertsSettings | None = None
    api: ApiSettings | None = None

    def verify(self) -> None:
        """Check what several sections decide together."""
        errors = list(file_problems(dict(self.sections())))
        if self.relay is not None and self.relay.topic is not None and self.kafka is None:
            errors.append(SettingError(("relay", "topic"), "needs the section kafka"))
        raise_all(errors)

    def sections(self) -> Iterator[tuple[str, Section]]:
        """Yield the present sections with their names."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Section):
                yield name, value

    def items(self) -> Iterator[Any]:
        """Yield the items of the sections' lists, of which there may be very many."""
        for _, section in self.sections():
            for name in section.__struct_fields__:
                value = getattr(section, name)
                if isinstance(value, list):
                    yield from value


class LoadedConfig:
    """A valid config, and the file that it is from."""

    def __init__(self, config: Config, document: Document | None) -> None:
        self.config = config
        self.file = document.file if document is not None else None
        self.empty = document is not None and document.empty
        # Warnings about what is read as version 1 read it.
        self.remarks: list[ConfigError] = []
        self._document = document

    def error(self, error: SettingError) -> ConfigError:
        """Return an error of a setting with its file and line."""
        if self._document is not None:
            return self._document.placed(error)
        return ConfigError(error.problem, file=self.file or "defaults", key=key_text(error.path))

    def forget_lines(self) -> None:
        """Forget what is in the file but the settings: it takes much more memory than these.

        To be called in a thread, where it takes as long as it takes.
        """
        document, self._document = self._document, None
        if document is not None:
            document.take_apart()


def load(
    file: str | None,
    *,
    environ: Mapping[str, str] = os.environ,
    keys: Collection[str] | None = None,
    also: Callable[[LoadedConfig], Sequence[ConfigError]] = lambda _: (),
) -> LoadedConfig:
    """Read and check ``file``, or return the defaults; raises ConfigError with all errors.

    If there are errors, ``also`` may find more in the sections that have none.

    With ``keys``, such as ``api.uri``, only their sections are checked, and not the files that they
    name: for a command, which may lack the variables and files that the service has. A variable
    that is missing is an error only in one of the ``keys``.
    """
    if file is None:
        return LoadedConfig(Config(), None)
    document = Document.read(file)
    try:
        return _load(document, environ, keys, also)
    except BaseException:
        document.take_apart()
        raise


def _load(
    document: Document,
    environ: Mapping[str, str],
    keys: Collection[str] | None,
    also: Callable[[LoadedConfig], Sequence[ConfigError]],
) -> LoadedConfig:
    loaded = LoadedConfig(Config(), document)
    old = OldKeys(document, [field.encode_name for field in msgspec.structs.fields(Config)])
    old.drop_ignored()
    omissions = Omissions()
    unset = []
    for error in document.substitute(environ):
        unset.append(error)
        # Past the most that are shown, the rest costs a line each, and nobody reads them.
        if keys is None and not omissions.add(error) and omissions.is_full:
            break
    try:
        loaded.config = _checked(document, old, omissions, files=keys is None)
    except SettingError as error:
        omissions.add(error)
        omissions.gave_up = True
    except ConfigError:
        # With keys, what is wrong elsewhere must not hide that nothing was read.
        if keys is not None or not omissions.errors:
            raise
    errors = omissions.errors if keys is None else _concerning(keys, unset, omissions)
    if errors:
        found = [loaded.error(document.as_written(each)) for each in errors]
        if not omissions.gave_up and not omissions.is_full:
            wrong = {str(error.path[0]) for error in errors if error.path}
            loaded.config = _without(loaded.config, wrong)
            found += also(loaded)
        raise all_of(found)
    loaded.remarks = old.remarks
    return loaded


def _without(config: Config, wrong: Collection[str]) -> Config:
    """Return the config without the ``wrong`` sections, and what else depends on them."""
    if "api" in wrong:
        wrong = {*wrong, "logs"}  # it uses the file of tokens, too
    always = (LoggerSettings, DatabaseSettings, BusSettings)
    changes = {
        name: section.__class__() if isinstance(section, always) else None
        for name, section in config.sections()
        if name in wrong
    }
    left: Config = config.replace(**changes)
    return left


def _concerning(
    keys: Collection[str], unset: list[SettingError], omissions: Omissions
) -> list[SettingError]:
    """Return the errors that concern a command that uses ``keys``."""
    used = [tuple(key.split(".")) for key in keys]
    found = [
        error for error in unset if any(all(map(operator.eq, error.path, key)) for key in used)
    ]
    known = {error.path for error in unset}
    found += [
        error
        for error in omissions.errors
        if omissions.gave_up
        or not error.path
        or (error.path[0] in {key[0] for key in used} and error.path not in known)
    ]
    return found


def _checked(document: Document, old: OldKeys, omissions: Omissions, *, files: bool) -> Config:
    """Return the config without its invalid values, which ``omissions`` gets with their errors.

    Whether keys fit each other and the ``files`` that they name is checked together.

    Raises SettingError if the rest is not worth a look.
    """
    while True:
        config = _convert(document, old, omissions)
        for problem in _hosts_problems(config):
            omissions.add(problem, [problem.path[: problem.path.index(0)]])
        if not files:
            return config
        for name, section in config.sections():
            try:
                section.verify()
            except SettingError as error:
                wrong = error.under(name)
                items = [_item(each.path) for each in (wrong, *wrong.others)]
                # All of one kind together: each further look at a long list takes long.
                kind = _kind(items[0])
                if not omissions.add(wrong, [at for at in items if _kind(at) == kind]):
                    continue
                break
        else:
            if not omissions.errors:
                config.verify()
            return config


def _item(path: SettingPath) -> SettingPath:
    """Return the path of the item of a list to leave out for an error; empty if there is none.

    Other keys may depend on each other.
    """
    steps = [at for at, step in enumerate(path, 1) if step.__class__ is int]
    if not steps:
        return ()
    return path[: steps[-1] if steps[-1] == len(path) else steps[0]]


def _kind(path: SettingPath) -> list[str | int]:
    return [step for step in path if step.__class__ is not int]


def _hosts_problems(section: Section, *path: str) -> Iterator[SettingError]:
    """Yield what is wrong with the host of each address, all of which the daemon listens on."""
    for field in msgspec.structs.fields(section):
        value, place = getattr(section, field.name), (*path, field.encode_name)
        if isinstance(value, Section):
            yield from _hosts_problems(value, *place)
        elif isinstance(value, tuple) and is_address(Config, list(place)):
            hosts: dict[SettingPath, str] = {(*place, 0): value[0]}
            if isinstance(value[0], tuple):
                hosts = {(*place, 0, at): host for at, host in enumerate(value[0])}
            for where, host in hosts.items():
                problem = check_host(host)
                if problem:
                    yield SettingError(where, problem)


def _completed(data: dict[str, Any]) -> dict[str, Any]:
    """Take empty sections for defaults, and ``false`` for an absent one."""
    for name, kind in _section_types().items():
        value = data.get(name, ...)
        if value is None:
            data[name] = {}
        elif value is False and kind not in (LoggerSettings, DatabaseSettings):
            data[name] = None
        elif isinstance(value, dict):
            data[name] = kind.completed(value)
    return data


def _section_types() -> dict[str, type[Section]]:
    types = {}
    for field in msgspec.structs.fields(Config):
        for kind in getattr(field.type, "__args__", (field.type,)):
            if isinstance(kind, type) and issubclass(kind, Section):
                types[field.encode_name] = kind
    return types


def _convert(document: Document, old: OldKeys, omissions: Omissions) -> Config:
    while True:
        data = _completed(old.read(omissions.apply(document.data())))
        try:
            return msgspec.convert(data, Config)
        except msgspec.ValidationError as error:
            wrong = setting_error(str(error), data, Config)
            # The value of a variable is text, unless a number, a flag or nothing is expected.
            no_text = "got `str`" in str(error)
            if document.reinterpret(omissions.original(wrong.path), alike=no_text):
                continue
            if not omissions.add(wrong):
                omissions.gave_up = True
                return Config()
