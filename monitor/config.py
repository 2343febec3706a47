"""Reads the YAML file, gathers the parts' settings, and says what is wrong by line and key.

:func:`load` gives a whole, checked :class:`Config` or raises ConfigError; nothing in between,
so that a reload can swap or leave alone. Unknown keys are errors that suggest the nearest
known one; ``${NAME}`` in a value is taken from the environment (``$${NAME}`` is left as
``${NAME}``).
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import yaml

from monitor.aggregation.settings import AggregationSettings
from monitor.bus.settings import BusSettings, KafkaSettings
from monitor.cluster.settings import ClusterSettings
from monitor.errors import ConfigError, SettingError, SettingPath, key_text
from monitor.logfile import LoggerSettings
from monitor.logs.settings import LogsSettings
from monitor.probes.settings import ProbesSettings
from monitor.relay.settings import RelaySettings
from monitor.settings import Address, Section, hide_url_secrets
from monitor.store.settings import DatabaseSettings
from monitor.web.settings import ApiSettings

__all__ = ["Config", "LoadedConfig", "load", "settings_in_force"]

_MAX_FILE_BYTES = 16 * 1024 * 1024
_MAX_NODES = 2_000_000
_VARIABLE = re.compile(r"\$(\$?)\{([A-Za-z_][A-Za-z0-9_]*)\}")


class Config(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole config. A part runs when its section is there; the relay unless it is ``false``."""

    # where web pages subscribe, over WebSocket; "*" and "" stand for all addresses
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
        """Yield the sections that are there, by name."""
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, Section):
                yield name, value


class LoadedConfig:
    """A checked config and the file that it came from."""

    def __init__(self, config: Config, file: str | None, root: yaml.Node | None) -> None:
        self.config = config
        self.file = file
        self._root = root

    def error(self, error: SettingError) -> ConfigError:
        """Give a setting's error its file and line."""
        return ConfigError(
            error.problem,
            file=self.file or "defaults",
            line=_line(self._root, error.path),
            key=key_text(error.path),
        )


def load(file: str | None, *, environ: Mapping[str, str] = os.environ) -> LoadedConfig:
    """Read and check ``file``; without one, the defaults. Raises ConfigError."""
    if file is None:
        return LoadedConfig(Config(), None, None)
    root = _compose(file, _read(file))
    loaded = LoadedConfig(Config(), file, root)
    try:
        if root is not None:
            _substitute(root, environ)
        data = _construct(root)
        loaded.config = _convert(data)
        for name, section in loaded.config.sections():
            try:
                section.verify()
            except SettingError as error:
                raise error.under(name) from None
        loaded.config.verify()
    except SettingError as error:
        raise loaded.error(error) from None
    return loaded


def settings_in_force(config: Config) -> str:
    """Return all settings as YAML, defaults included, secrets hidden."""
    data = {name: value for name, value in _shown(config).items() if value is not None}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False)


def _read(file: str) -> str:
    try:
        with Path(file).open("rb") as stream:
            raw = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", file=file) from None
    if len(raw) > _MAX_FILE_BYTES:
        raise ConfigError(f"longer than {_MAX_FILE_BYTES} bytes", file=file)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError("not UTF-8 text", file=file, line=line) from None


def _compose(file: str, text: str) -> yaml.Node | None:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        root = yaml.compose(text, loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        problem = error.problem or error.context or "not YAML"
        raise ConfigError(f"not YAML: {problem}", file=file, line=line) from None
    except (yaml.YAMLError, RecursionError) as error:
        problem = str(error).splitlines()[0] if str(error) else "nested too deeply"
        raise ConfigError(f"not YAML: {problem}", file=file) from None
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag == "tag:yaml.org,2002:null"):
        return None
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError("expected keys and values at the top", file=file, line=1)
    return root


def _nodes(root: yaml.Node) -> Iterator[tuple[SettingPath, yaml.Node]]:
    """Yield every node once, however often aliases repeat it, with a path that leads to it."""
    seen: set[int] = set()
    waiting: list[tuple[SettingPath, yaml.Node]] = [((), root)]
    while waiting:
        path, node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if len(seen) > _MAX_NODES:
            raise SettingError((), f"more than {_MAX_NODES} values")
        yield path, node
        if isinstance(node, yaml.MappingNode):
            waiting.extend(((*path, str(key.value)), value) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            waiting.extend(((*path, index), item) for index, item in enumerate(node.value))


def _substitute(root: yaml.Node, environ: Mapping[str, str]) -> None:
    resolver = yaml.SafeLoader("")
    for path, node in _nodes(root):
        if isinstance(node, yaml.MappingNode):
            keys = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise SettingError(path, "a key must be plain text")
                if key.value in keys and key.value != "<<":
                    raise SettingError((*path, key.value), "stands here twice")
                keys.add(key.value)
        if not isinstance(node, yaml.ScalarNode) or "${" not in node.value:
            continue

        def value(match: re.Match[str], path: SettingPath = path) -> str:
            escaped, name = match.groups()
            if escaped:
                return match[0][1:]
            try:
                return environ[name]
            except KeyError:
                raise SettingError(path, f"the environment has no variable {name}") from None

        node.value = _VARIABLE.sub(value, node.value)
        if node.style is None:
            # A plain scalar means what the text with the variable in it would have meant.
            node.tag = resolver.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]


def _construct(root: yaml.Node | None) -> dict[str, Any]:
    if root is None:
        return {}
    loader = yaml.SafeLoader("")
    try:
        data = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        raise SettingError((), f"not YAML that can be read: {error.problem}") from None
    except (ValueError, RecursionError) as error:
        raise SettingError((), f"not YAML that can be read: {error}") from None
    return _forgiving(cast("dict[str, Any]", data))


def _forgiving(data: dict[str, Any]) -> dict[str, Any]:
    """Take what the old monitor took, numbers as text; an empty section means its defaults."""
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
    logger = data.get("logger")
    if isinstance(logger, dict):
        data["logger"] = {
            key: int(value) if key in ("max-size", "rotations") and _is_digits(value) else value
            for key, value in logger.items()
        }
    return data


def _is_digits(value: object) -> bool:
    return isinstance(value, str) and value.isascii() and value.isdigit()


def _section_types() -> dict[str, type]:
    types = {}
    for field in msgspec.structs.fields(Config):
        for kind in getattr(field.type, "__args__", (field.type,)):
            if isinstance(kind, type) and issubclass(kind, Section):
                types[field.encode_name] = kind
    return types


def _convert(data: dict[str, Any]) -> Config:
    try:
        return msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        raise _setting_error(str(error), data) from None


def _setting_error(text: str, data: Any) -> SettingError:
    """Turn msgspec's ``... - at `$.a.b[2]` `` into a path and a problem."""
    problem, _, place = text.partition(" - at `")
    path: list[str | int] = []
    for name, index, anything in re.findall(r"\.([^.\[`]+)|\[(\d+)\]|(\[\.\.\.\])", place):
        if anything:
            break
        path.append(int(index) if index else name)
    unknown = re.search(r"unknown field `(.*)`", problem)
    if unknown:
        key = unknown[1]
        known = _known_keys(path)
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else f"known here are {', '.join(known)}"
        return SettingError((*path, key), f"unknown key; {hint}")
    missing = re.search(r"missing required field `(.*)`", problem)
    if missing:
        return SettingError(tuple(path), f"the key {missing[1]} is missing")
    value = _value_at(data, path)
    shown = f", not {value!r}" if isinstance(value, (int, float)) or value is None else ""
    problem = problem.replace("`", "").replace("Expected ", "expected ").replace(", got", ", not")
    if " not " in problem:
        shown = ""
    return SettingError(tuple(path), problem + shown)


def _value_at(data: Any, path: list[str | int]) -> Any:
    for step in path:
        try:
            data = data[step]
        except (KeyError, IndexError, TypeError):
            return ...
    return data


def _known_keys(path: list[str | int]) -> list[str]:
    """Return the keys of the section at ``path``."""
    kind: msgspec.inspect.Type = msgspec.inspect.type_info(Config)
    for step in path:
        options = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
        for option in options:
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
            return []
    options = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
    return [
        field.encode_name
        for option in options
        if isinstance(option, msgspec.inspect.StructType)
        for field in option.fields
    ]


def _line(root: yaml.Node | None, path: SettingPath) -> int | None:
    """Return the line (from 1) of the deepest part of ``path`` that stands in the file."""
    if root is None:
        return None
    line = root.start_mark.line + 1 if path == () else None
    node = root
    for step in path:
        found = None
        if isinstance(node, yaml.MappingNode):
            # The last one, so that a key that stands there twice is shown at its repetition.
            pairs = [pair for pair in node.value if str(pair[0].value) == step]
            if pairs:
                line, found = pairs[-1][0].start_mark.line + 1, pairs[-1][1]
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value)
        ):
            found = node.value[step]
            line = found.start_mark.line + 1
        if found is None:
            break
        node = found
    return line


def _shown(section: Section) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    types = {field.name: field for field in msgspec.inspect.type_info(type(section)).fields}  # type: ignore[attr-defined]
    for name in section.__struct_fields__:
        value = getattr(section, name)
        hidden = _is_secret(types[name].type)
        shown[types[name].encode_name] = "***" if hidden and value else _plain(value)
    return shown


def _is_secret(kind: msgspec.inspect.Type) -> bool:
    if isinstance(kind, msgspec.inspect.Metadata):
        return bool(kind.extra and kind.extra.get("secret")) or _is_secret(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return any(_is_secret(option) for option in kind.types)
    return False


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
