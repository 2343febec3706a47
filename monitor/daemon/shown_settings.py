"""All settings in force as YAML, without secrets."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from monitor.settings import Section, hide_url_secrets, is_marked

__all__ = ["settings_in_force"]


def settings_in_force(config: Section) -> str:
    """Return all settings as YAML, including defaults, without secrets."""
    data = {name: value for name, value in _shown(config).items() if value is not None}
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False)


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
