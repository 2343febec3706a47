"""Jobs from the file of another program, each verified, and what could not be taken of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from monitor.errors import SettingError
from monitor.files.json_keys import each_key_once, require_each_key_once
from monitor.files.yaml_nodes import compose, construct, decode
from monitor.probes.checks import read_job
from monitor.probes.foreign_jobs import foreign_jobs
from monitor.probes.job import Job
from monitor.probes.jobs_file import marked

__all__ = ["MAX_BYTES", "Entry", "imported"]

MAX_BYTES = 16 * 1024 * 1024

# For checking a job before it gets its id.
_SOME_ID = 2**53
# Without these it would be another job.
_NEEDED = ("id", "kind", "url", "interval")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the file: where it is, its job, and what was not taken.

    ``keys`` are those of the job, without the id, which it gets where it is added.
    """

    place: str
    keys: dict[str, Any] | None
    job: Job | None
    not_taken: list[str]


def imported(file: str, raw: bytes) -> Iterator[Entry]:
    """Yield the entries of ``file``, JSON or YAML; block: expressions are compiled.

    Raises ValueError for a file of no known kind, and ConfigError for one that is not YAML.
    """
    for place, keys, not_taken in foreign_jobs(_data(file, raw)):
        lost = list(not_taken)
        job = None if keys is None else _job(keys, lost)
        yield Entry(place, keys if job is not None else None, job, lost)


def _job(keys: dict[str, Any], lost: list[str]) -> Job | None:
    """Return the job; its keys that cannot be taken move to ``lost``, with the reason."""
    while True:
        try:
            return read_job({"id": _SOME_ID, **keys})
        except SettingError as error:
            key = re.split(r"[.\[]", str(error.path[0]))[0] if error.path else ""
            if key in _NEEDED or keys.pop(key, None) is None:
                lost.append(str(error))
                return None
            lost.append(f"{error} (the job is without its {key})")


def _data(file: str, raw: bytes) -> Any:
    try:
        found = json.loads(raw, object_pairs_hook=each_key_once)
    except (ValueError, RecursionError):
        root = compose(file, decode(file, raw))
        # What looks like a number or a truth value may be a name there.
        found = marked(construct(file, root, texts=True), root)
    try:
        require_each_key_once(found)
    except SettingError as error:
        raise ValueError(str(error)) from None
    return found
