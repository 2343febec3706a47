"""The config's keys, read from the source in the same way as recodex-monitor.yml(5)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

__all__ = ["config_fields", "config_keys", "job_keys"]

_MAN_PAGE = Path(__file__).resolve().parents[2] / "packaging" / "man" / "config-page"


@cache
def _source() -> Any:
    """Read the source with the program that prints the manual page."""
    import sys

    loader = SourceFileLoader("config_page", str(_MAN_PAGE))
    spec = spec_from_loader("config_page", loader)
    assert spec is not None
    module = module_from_spec(spec)
    # Its dataclass looks itself up in sys.modules. No bytecode may be left next to the program.
    sys.modules["config_page"] = module
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = writes
    return module.Source()


def config_fields() -> dict[str, list[Any]]:
    """Return the keys of each section, by its name."""
    source = _source()
    return {
        field.name: list(source.fields(field.section))
        for field in source.fields("Config")
        if field.section is not None
    }


def config_keys() -> str:
    """Return a table for each section."""
    source = _source()
    top = list(source.fields("Config"))
    lines = ["## Addresses", "", *_table([field for field in top if field.section is None], source)]
    for field in top:
        if field.section is not None:
            text = field.text or source.summary(field.section)
            lines += ["", f"## {field.name}", "", _plain(text), ""]
            fields = list(source.fields(field.section))
            lines += _table(fields, source)
            for inner in fields:
                if inner.section is None:
                    continue
                tag = source.tag_field(inner.section)
                for kind, own in source.kinds(inner.section, reload=inner.reload).items():
                    if own:
                        title = f"### {inner.name} of {tag} {kind}"
                        lines += ["", title, "", *_table(own, source)]
    return "\n".join(lines)


def job_keys() -> dict[str, str]:
    """Return a table of the keys that all jobs have, by "", and of each kind's own."""
    source = _source()
    tables = {
        "": list(source.fields("Job", reload=True)),
        **source.kinds("Job", reload=True),
    }
    return {kind: "\n".join(_table(fields, source)) for kind, fields in tables.items()}


def _table(fields: list[Any], source: Any) -> Iterator[str]:
    yield "| key | type | default | reload | meaning |"
    yield "|---|---|---|---|---|"
    for name, field in _rows(fields, source, ""):
        default = f"`{_cell(field.default)}`" if field.default is not None else ""
        text = _plain(field.text or (source.summary(field.section) if field.section else ""))
        reload = "yes" if field.reload else "restart"
        yield f"| `{name}` | {_cell(field.kind)} | {default} | {reload} | {_cell(text)} |"


def _rows(fields: list[Any], source: Any, path: str) -> Iterator[tuple[str, Any]]:
    for field in fields:
        name = f"{path}{field.name}"
        yield name, field
        if field.section is not None:
            inner = f"{name}[]." if field.many else f"{name}."
            yield from _rows(list(source.fields(field.section, reload=field.reload)), source, inner)


def _plain(text: str) -> str:
    text = text.strip().replace("``", "`")
    if text.startswith("s "):
        text = f"seconds {text[2:]}"
    return text.rstrip(".")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
