"""Reads the YAML file into the settings of all parts; errors have line and key.

:func:`load` returns a complete, valid :class:`Config` or raises ConfigError, so that a reload
either replaces the config or changes nothing. For an unknown key the error suggests the nearest
known one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml

from monitor.aggregation.settings import AggregationSettings
from monitor.bus.settings import BusSettings, KafkaSettings
from monitor.cluster.settings import ClusterSettings
from monitor.daemon.logfile import LoggerSettings
from monitor.daemon.yaml_document import Document
from monitor.errors import ConfigError, SettingError, key_text
from monitor.logs.settings import LogsSettings
from monitor.probes.settings import ProbesSettings
from monitor.relay.settings import RelaySettings
from monitor.settings import Address, Section, hide_url_secrets, is_marked
from monitor.store.settings import DatabaseSettings
from monitor.validation import did_you_mean, expectation, unknown_tagged_key
from monitor.web.settings import ApiSettings

__all__ = ["Config", "LoadedConfig", "load", "settings_in_force"]


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The config. A part runs if its section is present; the relay unless it is ``false``."""

    # where web pages subscribe, over WebSocket; "*" and "" mean all addresses
    websocket_uri: Address = ("127.0.0.1", 4567)
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
    api: ApiSettings | None = None

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
        self._document = document

    def error(self, error: SettingError) -> ConfigError:
        """Return an error of a setting with its file and line."""
        return ConfigError(
            error.problem,
            file=self.file or "defaults",
            line=self._document.line(error.path) if self._document is not None else None,
            key=key_text(error.path),
        )


def load(file: str | None, *, environ: Mapping[str, str] = os.environ) -> LoadedConfig:
    """Read and check ``file``, or return the defaults; raises ConfigError."""
    if file is None:
        return LoadedConfig(Config(), None)
    document = Document.read(file)
    loaded = LoadedConfig(Config(), document)
    try:
        document.substitute(environ)
        loaded.config = _convert(document)
        for name, section in loaded.config.sections():
            try:
                section.verify()
            except SettingError as error:
                raise error.under(name) from None
        loaded.config.verify()
    except SettingError as error:
        raise loaded.error(document.as_written(error)) from None
    return loaded


def settings_in_force(config: Config) -> str:
    """Return all settings as YAML, including defaults, without secrets."""
    data = {name: value for name, value in _shown(config).items() if value is not None}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False)


def _forgiving(data: dict[str, Any]) -> dict[str, Any]:
    """Accept what the old monitor accepts: numbers as text, and empty sections for defaults."""
    data = dict(data)
    for key in ("websocket_uri", "zeromq_uri"):
        address = data.get(key)
        if isinstance(address, list) and len(address) == 2 and _is_digits(address[1]):
            data[key] = [address[0], int(address[1])]
    for name, kind in _section_types().items():
        value = data.get(name, ...)
        if value is None:
            data[name] = {}
        elif value is False and kind not in (LoggerSettings, DatabaseSettings):
            data[name] = None
        elif isinstance(value, dict):
            data[name] = kind.completed(value)
    logger = data.get("logger")
    if isinstance(logger, dict):
        data["logger"] = {
            key: int(value) if key in ("max-size", "rotations") and _is_digits(value) else value
            for key, value in logger.items()
        }
    return data


def _is_digits(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdigit()


def _section_types() -> dict[str, type[Section]]:
    types = {}
    for field in msgspec.structs.fields(Config):
        for kind in getattr(field.type, "__args__", (field.type,)):
            if isinstance(kind, type) and issubclass(kind, Section):
                types[field.encode_name] = kind
    return types


def _convert(document: Document) -> Config:
    while True:
        data = _forgiving(document.data())
        try:
            return msgspec.convert(data, Config)
        except msgspec.ValidationError as error:
            wrong = _setting_error(str(error), data)
            # The value of a variable is text, unless a number, a flag or nothing is expected.
            if not document.reinterpret(wrong.path):
                raise wrong from None


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
    kind: msgspec.inspect.Type = msgspec.inspect.type_info(Config)
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
