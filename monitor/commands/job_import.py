"""``job import FILE``: writes the jobs of another program's file as a jobs file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from monitor.commands.terminal_text import terminal_text
from monitor.errors import ConfigError, UsageError
from monitor.files.reading import read_file
from monitor.probes.importing import MAX_BYTES, imported

__all__ = ["import_jobs"]


def import_jobs(file: str) -> int:
    """Print the jobs as JSON, and on stderr a line for what was not taken; 1 if there is any."""
    try:
        raw = read_file(Path(file), max_bytes=MAX_BYTES, own=True)
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None
    try:
        found = list(imported(file, raw))
    except ConfigError as error:
        raise UsageError(str(error)) from None
    except ValueError as error:
        raise UsageError(f"{file}: {error}") from None
    jobs: list[dict[str, Any]] = []
    problems = 0
    for entry in found:
        if entry.keys is not None:
            jobs.append({"id": len(jobs) + 1, **entry.keys})
        for each in entry.not_taken:
            problems += 1
            line = f"recodex-monitor: {file}: {entry.place}: not taken: {each}"
            print(terminal_text(line), file=sys.stderr)
    print(json.dumps(jobs, indent=2, ensure_ascii=False))
    return 1 if problems else 0
