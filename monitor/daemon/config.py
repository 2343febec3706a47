"""Reads the YAML file into the settings of all parts; errors have line and key.

:func:`load` returns a complete, valid :class:`Config` or raises ConfigError, so that a reload
either replaces the config or changes nothing. For an unknown key the error suggests the nearest
known one.
"""

from __future__ import annotations

import functools
import operator
import os
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec
import yaml

from monitor.aggregation.settings import AggregationSettings
from monitor.alerts.settings import AlertsSettings
from monitor.bus.settings import BusSettings, KafkaSettings
from monitor.cluster.settings import ClusterSettings
from monitor.daemon.logfile import LoggerSettings
from monitor.daemon.old_keys import OldKeys
from monitor.daemon.omissions import Omissions
from monitor.daemon.yaml_document import Document
from monitor.errors import ConfigError, SettingError, SettingPath, all_of, key_text
from monitor.logs.settings import LogsSettings
from monitor.probes.settings import ProbesSettings
from monitor.relay.settings import RelaySettings
from monitor.settings import (
    Address,
    ListenAddress,
    Section,
    check_host,
    hide_url_secrets,
    is_marked,
)
from monitor.store.settings import DatabaseSettings
from monitor.validation import did_you_mean, expectation, unknown_tagged_key
from monitor.web.settings import ApiSettings

__all__ = ["Config", "LoadedConfig", "load", "settings_in_force"]


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
        if self.relay is not None and self.relay.topic is not None and self.kafka is None:
            raise SettingError(("relay", "topic"), "needs the section kafka")

    def sections(self) -> Iterator[tuple[str, Section]]:
        """Yield the present sections with their names."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Section):
                yield name, value


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
        """Forget what is in the file but the settings: it takes much more memory than these."""
        self._document = None


def load(
    file: str | None,
    *,
    environ: Mapping[str, str] = os.environ,
    keys: Collection[str] | None = None,
) -> LoadedConfig:
    """Read and check ``file``, or return the defaults; raises ConfigError with all errors.

    With ``keys``, such as ``api.uri``, only their sections are checked, and not the files that they
    name: for a command, which may lack the variables and files that the service has. A variable
    that is missing is an error only in one of the ``keys``.
    """
    if file is None:
        return LoadedConfig(Config(), None)
    document = Document.read(file)
    loaded = LoadedConfig(Config(), document)
    old = OldKeys(document, [field.encode_name for field in msgspec.structs.fields(Config)])
    old.drop_ignored()
    omissions = Omissions()
    unset = list(document.substitute(environ))
    if keys is None:
        for error in unset:
            omissions.add(error)
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
        raise all_of([loaded.error(document.as_written(each)) for each in errors])
    loaded.remarks = old.remarks
    return loaded


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
            omissions.add(problem, problem.path[: problem.path.index(0)])
        if not files:
            return config
        for name, section in config.sections():
            try:
                section.verify()
            except SettingError as error:
                wrong = error.under(name)
                # An item of a list can be left out; other keys may depend on each other.
                item = next((at for at, step in enumerate(wrong.path) if step.__class__ is int), -1)
                if not omissions.add(wrong, wrong.path[: item + 1]):
                    continue
                break
        else:
            if not omissions.errors:
                config.verify()
            return config


def settings_in_force(config: Config) -> str:
    """Return all settings as YAML, including defaults, without secrets."""
    data = {name: value for name, value in _shown(config).items() if value is not None}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False)


def _hosts_problems(section: Section, *path: str) -> Iterator[SettingError]:
    """Yield what is wrong with the host of each address, all of which the daemon listens on."""
    for field in msgspec.structs.fields(section):
        value, place = getattr(section, field.name), (*path, field.encode_name)
        if isinstance(value, Section):
            yield from _hosts_problems(value, *place)
        elif isinstance(value, tuple) and _is_address(list(place)):
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
            wrong = _setting_error(str(error), data)
            # The value of a variable is text, unless a number, a flag or nothing is expected.
            if document.reinterpret(omissions.original(wrong.path)):
                continue
            if not omissions.add(wrong):
                omissions.gave_up = True
                return Config()


def _setting_error(text: str, data: Any) -> SettingError:
    """Return path and problem of an error of msgspec: ``... - at `$.a.b[2]` ``."""
    problem, _, place = text.partition(" - at `")
    path: list[str | int] = []
    for name, index, anything in re.findall(r"\.([^.\[`]+)|\[(\d+)\]|(\[\.\.\.\])", place):
        if anything:
            break
        path.append(int(index) if index else name)
    unknown = re.search(r"unknown field `(.*)`", problem, re.DOTALL)
    if unknown:
        return SettingError((*path, unknown[1]), _unknown_key(unknown[1], path, data))
    missing = re.search(r"missing required field `(.*)`", problem)
    if missing:
        return SettingError(tuple(path), f"the key {missing[1]} is missing")
    value = _value_at(data, path)
    if problem.startswith("Invalid value") and path:
        # A tag, which selects one of several kinds of sections.
        tags = [str(option.tag) for option in _sections_at(path[:-1])]
        problem = f"unknown {path[-1]} {value!r}; {did_you_mean(str(value), tags)}"
        return SettingError(tuple(path), problem)
    if problem.startswith("Invalid enum value"):
        allowed = _allowed_values(path)
        if allowed:
            return SettingError(tuple(path), f"expected one of {', '.join(allowed)}, not {value!r}")
    shown = f", not {value!r}" if isinstance(value, (int, float)) or value is None else ""
    problem = _in_plain_words(problem, path, value)
    if problem == "expected a whole number, not a number":
        problem = "expected a whole number"
    if " not " in problem:
        shown = ""
    return SettingError(tuple(path), problem + shown)


# As YAML's users call what msgspec calls an object.
_YAML_WORDS = {"object": "a section of keys"}
_WITH_UNIT = re.compile(
    r"[\d.]+ ?(?:[kKMGT]i?B?|B|m?s|m|h|d|secs?|min|(?:second|minute|hour|day)s?)"
)


def _in_plain_words(problem: str, path: list[str | int], value: Any) -> str:
    words = _YAML_WORDS
    if _is_address(path):
        if "of length" in problem:
            return 'expected ["HOST", PORT]'
        words = {**words, "array": '["HOST", PORT]'}
    said = expectation(problem, words)
    if said is None:
        return problem.replace("`", "")
    if isinstance(value, str) and "number" in said and _WITH_UNIT.fullmatch(value):
        return "expected a number without a unit; times are in seconds, sizes in bytes"
    return said


def _is_address(path: list[str | int]) -> bool:
    return any(
        isinstance(option, msgspec.inspect.TupleType) and len(option.item_types) == 2
        for option in _types_at(path)
    )


def _value_at(data: Any, path: list[str | int]) -> Any:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return ...
    return data


def _unknown_key(key: str, path: list[str | int], data: Any) -> str:
    """Return the error for an unknown ``key`` in the section at ``path``."""
    sections = _sections_at(path)
    tag_field = sections[0].tag_field if sections else None
    if tag_field is None:
        known = [field.encode_name for section in sections for field in section.fields]
        return f"unknown key; {did_you_mean(key, known)}"
    keys = {
        str(section.tag): [tag_field, *(field.encode_name for field in section.fields)]
        for section in sections
    }
    return unknown_tagged_key(key, tag_field, _value_at(data, path)[tag_field], keys)


def _sections_at(path: list[str | int]) -> list[msgspec.inspect.StructType]:
    """Return the possible types of the section at ``path``."""
    return [option for option in _types_at(path) if isinstance(option, msgspec.inspect.StructType)]


def _allowed_values(path: list[str | int]) -> list[str]:
    """Return the allowed values at ``path`` if they are fixed."""
    allowed: list[str] = []
    for option in _types_at(path):
        if isinstance(option, msgspec.inspect.LiteralType):
            allowed += [str(value) for value in option.values]
        elif isinstance(option, msgspec.inspect.EnumType):
            allowed += [str(member.value) for member in option.cls]
    return list(dict.fromkeys(allowed))


def _types_at(path: list[str | int]) -> tuple[msgspec.inspect.Type, ...]:
    """Return the possible types of the value at ``path``."""
    kind = _config_type()
    for step in path:
        for option in _options(kind):
            if isinstance(option, msgspec.inspect.StructType) and isinstance(step, str):
                found = [field.type for field in option.fields if field.encode_name == step]
                if found:
                    kind = found[0]
                    break
            if isinstance(step, int):
                item = getattr(option, "item_type", None)
                if item is not None:
                    kind = item
                    break
        else:
            return ()
    return _options(kind)


@functools.cache
def _config_type() -> msgspec.inspect.Type:
    return msgspec.inspect.type_info(Config)


def _options(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    """Return the types of a union, or the type itself, without bounds."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return _options(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return tuple(option for one in kind.types for option in _options(one))
    return (kind,)


def _shown(section: Section) -> dict[str, Any]:
    config = section.__struct_config__
    shown: dict[str, Any] = {} if config.tag_field is None else {config.tag_field: config.tag}
    types = {field.name: field for field in msgspec.inspect.type_info(type(section)).fields}  # type: ignore[attr-defined]
    for name in section.__struct_fields__:
        value = getattr(section, name)
        hidden = is_marked(types[name].type, "secret")
        shown[types[name].encode_name] = "***" if hidden and value else _plain(value)
    return shown


def _plain(value: Any) -> Any:
    if isinstance(value, Section):
        return _shown(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, str) and "://" in value:
        return hide_url_secrets(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return msgspec.to_builtins(value)
