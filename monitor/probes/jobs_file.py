"""Jobs from a JSON or YAML file, which may change at any time."""

from __future__ import annotations

import asyncio
import codecs
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import yaml

from monitor.errors import ConfigError, SettingError, without_traces
from monitor.files.json_keys import Twice, each_key_once, require_each_key_once
from monitor.files.reading import FileStamp, file_stamp, read_file
from monitor.files.threads import call_aside
from monitor.files.yaml_nodes import MERGE_TAG, compose, construct, decode, take_apart
from monitor.probes.checks import read_job
from monitor.probes.job import Job
from monitor.probes.source import JobList, JobSource
from monitor.validation import printable
from monitor.yielding import in_slices

__all__ = ["FileJobs", "marked", "read_jobs"]

_MAX_FILE_BYTES = 64 * 1024 * 1024
# YAML takes a hundred times as long as JSON, and much more memory.
_MAX_YAML_BYTES = 16 * 1024 * 1024
_MOST_JOBS = 200_000
_MOST_JSON_VALUES = 3_000_000
# Decoding one job holds all threads.
_MAX_JOB_BYTES = 1024 * 1024
_MAX_S = 120.0
_LOOK_S = 2.0
_MOST_SHOWN = 200


class FileJobs(JobSource):
    """A file that holds a list of jobs, or a mapping with such a list under ``jobs``."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._seen: FileStamp | None = None

    async def load(self) -> JobList:
        """Read the file, off the loop."""
        stamp = await call_aside(file_stamp, self._file)
        # Until it is read whole, whatever is there is new.
        self._seen = None
        jobs = await call_aside(_read_aside, self._file)
        self._seen = stamp
        return jobs

    async def changed(self) -> None:
        """Look at the file every two seconds; return once it has changed."""
        while await call_aside(file_stamp, self._file) == self._seen:
            await asyncio.sleep(_LOOK_S)


def _read_aside(file: Path) -> JobList:
    try:
        return read_jobs(file)
    except SettingError as error:
        raise without_traces(error) from None


def read_jobs(file: Path, *, own: bool = False) -> JobList:
    """Read and check all jobs; ``refused`` names bad ones, which are left out.

    ``own`` is for a file from the command line, see read_file(). Raises SettingError with path
    ``("jobs_file",)`` if there is no list to read.
    """
    items, place = _items(file, own=own)
    if len(items) > _MOST_JOBS:
        raise _refusal(f"{file} lists more than {_MOST_JOBS} jobs")
    jobs: dict[int, Job] = {}
    refused = []
    until = time.monotonic() + _MAX_S
    for number in in_slices(range(len(items))):
        # What was read is freed piece by piece.
        item, items[number] = items[number], None
        if time.monotonic() > until:
            raise _refusal(f"{place(number)}: its jobs are not checked within {_MAX_S:g} s")
        try:
            if item is _TOO_LONG:
                raise SettingError((), f"longer than {_MAX_JOB_BYTES} bytes")
            require_each_key_once(item)
            job = read_job(item)
            if job.id in jobs:
                raise SettingError(("id",), f"another job also has the id {job.id}")
            jobs[job.id] = job
        except SettingError as error:
            problem = str(error)[:_MOST_SHOWN]
            refused.append(f"{place(number)}: {_name(number, item)}: {problem}")
    found = JobList(tuple(jobs[job_id] for job_id in sorted(jobs)), tuple(refused))
    return found.without_circles(str(file))


def _refusal(problem: str) -> SettingError:
    return SettingError(("jobs_file",), problem)


def _items(file: Path, *, own: bool) -> tuple[list[Any], Callable[[int], str]]:
    """Return the list's items, and what says where in the file the one of an index stands."""
    try:
        raw = read_file(file, max_bytes=_MAX_FILE_BYTES, own=own)
    except OSError as error:
        raise _refusal(f"cannot read {file}: {error.strerror}") from None
    # JSON first: it is read a hundred times faster, and YAML takes nearly all of it.
    not_json = ""
    bare = raw.removeprefix(codecs.BOM_UTF8)
    if bare.lstrip()[:1] in (b"[", b"{"):
        try:
            return _json_items(file, bare), lambda _: str(file)
        except _NotJsonError as error:
            not_json = str(error)
    try:
        if len(raw) > _MAX_YAML_BYTES:
            raise ConfigError(f"longer than {_MAX_YAML_BYTES} bytes, and not JSON", file=str(file))
        root = compose(str(file), decode(str(file), raw))
    except ConfigError as error:
        raise _refusal(not_json or str(error)) from None
    try:
        return _yaml_items(file, root)
    except ConfigError as error:
        raise _refusal(not_json or str(error)) from None
    finally:
        take_apart(root)


def _yaml_items(file: Path, root: yaml.Node | None) -> tuple[list[Any], Callable[[int], str]]:
    found = [root]
    if isinstance(root, yaml.MappingNode):
        found = [value for key, value in root.value if key.value == "jobs"]
    if len(found) > 1:
        raise _refusal(f"{file}: jobs: duplicate key")
    if not found or not isinstance(found[0], yaml.SequenceNode):
        raise _refusal(f"{file} holds no list of jobs")
    nodes = found[0].value
    data = [marked(construct(str(file), node), node) for node in in_slices(nodes)]
    lines = [node.start_mark.line + 1 for node in nodes]
    return data, lambda number: f"{file}:{lines[number]}"


def _json_items(file: Path, raw: bytes) -> list[Any]:
    if raw.count(b",") > _MOST_JSON_VALUES:
        raise _refusal(f"{file} holds more than {_MOST_JSON_VALUES} values")
    try:
        found = msgspec.json.decode(raw, type=list[msgspec.Raw] | dict[str, msgspec.Raw])
        if isinstance(found, dict):
            if raw.count(b'"jobs"') > 1:
                return _listed(file, _python_json(file, raw))
            found = msgspec.json.decode(found.get("jobs", b"null"), type=list[msgspec.Raw])
        # One by one, so that the loop has its turns in between.
        return [_decoded(item) for item in in_slices(found)]
    except (msgspec.MsgspecError, ValueError, RecursionError):
        # Python's reader takes half of a surrogate pair, of which one job alone is refused.
        return _listed(file, _python_json(file, raw))


def _decoded(item: msgspec.Raw) -> Any:
    raw = bytes(item)
    return _TOO_LONG if len(raw) > _MAX_JOB_BYTES else _read_json(raw)


def _read_json(raw: bytes) -> Any:
    return json.loads(raw, object_pairs_hook=each_key_once)


def _listed(file: Path, data: Any) -> list[Any]:
    if isinstance(data, Twice):
        raise _refusal(f"{file}: {printable(data.key)}: duplicate key")
    data = data.get("jobs") if isinstance(data, dict) else data
    if not isinstance(data, list):
        raise _refusal(f"{file} holds no list of jobs")
    return data


def _python_json(file: Path, raw: bytes) -> Any:
    try:
        return _read_json(raw)
    except json.JSONDecodeError as error:
        raise _NotJsonError(f"{file}:{error.lineno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _NotJsonError(f"{file}: not JSON: {problem}") from None


# Stands for a job that was not decoded.
_TOO_LONG = object()


def marked(item: Any, node: yaml.Node | None) -> Any:
    """Return an item of YAML that says where a key is twice, as one of JSON does."""
    if isinstance(node, yaml.SequenceNode) and isinstance(item, list):
        return [marked(each, below) for each, below in zip(item, node.value, strict=True)]
    if not isinstance(node, yaml.MappingNode) or not isinstance(item, dict):
        return item
    keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    names = [key.value for key in keys if key.tag != MERGE_TAG]
    below = {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}
    found = {
        key: marked(value, below[key]) if key in below else value for key, value in item.items()
    }
    return Twice.of(found, names)


class _NotJsonError(Exception):
    """Text that starts like JSON and is not valid; it may be YAML."""


def _name(number: int, item: Any) -> str:
    job_id = item.get("id") if isinstance(item, dict) else None
    return f"job {job_id}" if isinstance(job_id, int) else f"jobs[{number}]"
