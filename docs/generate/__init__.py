"""The parts of the reference that are generated from the code.

``python -m docs.generate`` writes them into the pages, between ``<!-- generated: NAME -->`` and
``<!-- end -->``, into the manual page of the commands, the packaged config, and the completion
scripts. A test checks that the committed files are up to date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from docs.generate.api import calls
from docs.generate.architecture import FLOWS, floors, flow
from docs.generate.commands import command_sections, exit_statuses, man_synopsis
from docs.generate.config import config_keys, job_keys
from docs.generate.errors import error_table
from docs.generate.metrics import metrics_table
from docs.generate.packaged_config import PACKAGED_CONFIG, with_every_key
from docs.generate.results import result_columns, result_keys
from monitor.commands.completion import SHELLS, script

__all__ = ["PAGES", "renewed"]

PAGES = Path(__file__).resolve().parents[1]
_MANUAL = PAGES.parent / "packaging/man/recodex-monitor.8"

_MADE: dict[str, Callable[[], str]] = {
    "calls": calls,
    "commands": command_sections,
    "config-keys": config_keys,
    "error-words": error_table,
    "exit-statuses": exit_statuses,
    "floors": floors,
    "metrics": metrics_table,
    "result-columns": result_columns,
    "result-keys": result_keys,
    **{f"flow-{part}": partial(flow, part) for part in FLOWS},
    # One block for each kind of check, wherever its section is.
    **{
        f"job-keys-{kind}" if kind else "job-keys": partial(str, table)
        for kind, table in job_keys().items()
    },
}
# A package builds without the libraries of the commands.
_COMPLETIONS = PAGES.parent / "packaging/completion"
_SYNOPSIS = re.compile(r"(?<=^\.Sh SYNOPSIS\n).*?(?=^\.Sh )", re.S | re.M)
_BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n).*?(<!-- end -->\n)", re.S)


def renewed() -> Iterator[tuple[Path, str, str]]:
    """Yield each page with generated blocks: its file, its text, and the text it should have."""
    manual = _MANUAL.read_text(encoding="utf-8")
    yield _MANUAL, manual, _SYNOPSIS.sub(lambda _: man_synopsis(), manual)
    config = PACKAGED_CONFIG.read_text(encoding="utf-8")
    yield PACKAGED_CONFIG, config, with_every_key(config)
    for shell in SHELLS:
        file = _COMPLETIONS / f"recodex-monitor.{shell}"
        yield file, file.read_text(encoding="utf-8") if file.exists() else "", script(shell)
    left = set(_MADE)
    for file in sorted(PAGES.rglob("*.md")):
        text = file.read_text(encoding="utf-8")
        names = [found[2] for found in _BLOCK.finditer(text)]
        if names:
            left -= set(names)
            yield (
                file,
                text,
                _BLOCK.sub(lambda found: f"{found[1]}\n{_MADE[found[2]]()}\n\n{found[3]}", text),
            )
    if left:
        raise LookupError(f"no page has a block for {', '.join(sorted(left))}")
