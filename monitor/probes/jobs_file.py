"""Jobs from a JSON or YAML file, which may change at any time."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import yaml

from monitor.errors import SettingError
from monitor.probes.checks import read_job
from monitor.probes.job import Job
from monitor.probes.source import JobList, JobSource

__all__ = ["FileJobs", "read_jobs"]

_MAX_FILE_BYTES = 64 * 1024 * 1024
_LOOK_S = 2.0
_MOST_SHOWN = 200


class FileJobs(JobSource):
    """A file that holds a list of jobs, or a mapping with such a list under ``jobs``."""

    def __init__(self, file: str) -> None:
        self._file = Path(file)
        self._seen: tuple[int, int, int] | None = None

    async def load(self) -> JobList:
        """Read the file, off the loop."""
        self._seen = await asyncio.to_thread(self._stamp)
        return await asyncio.to_thread(read_jobs, self._file)

    async def changed(self) -> None:
        """Look at the file every two seconds; return once it has changed."""
        while await asyncio.to_thread(self._stamp) == self._seen:
            await asyncio.sleep(_LOOK_S)

    def _stamp(self) -> tuple[int, int, int] | None:
        """Return what changes when the file is written or replaced."""
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


def read_jobs(file: Path) -> JobList:
    """Read and check all jobs; ``refused`` names bad ones, which are left out.

    Raises SettingError with path ``("jobs_file",)`` if there is no list to read.
    """
    items = _items(file)
    jobs: dict[int, Job] = {}
    refused = []
    for number, item in enumerate(items):
        try:
            job = read_job(item)
            if job.id in jobs:
                raise SettingError(("id",), f"another job also has the id {job.id}")
            jobs[job.id] = job
        except SettingError as error:
            refused.append(f"{file}: {_name(number, item)}: {str(error)[:_MOST_SHOWN]}")
    return JobList(tuple(jobs[job_id] for job_id in sorted(jobs)), tuple(refused))


def _items(file: Path) -> list[Any]:
    def refuse(problem: str) -> SettingError:
        return SettingError(("jobs_file",), problem)

    try:
        with file.open("rb") as stream:
            raw = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise refuse(f"cannot read {file}: {error.strerror}") from None
    if len(raw) > _MAX_FILE_BYTES:
        raise refuse(f"{file} is longer than {_MAX_FILE_BYTES} bytes")
    try:
        # JSON first: it is read a hundred times faster, and YAML takes nearly all of it.
        data = json.loads(raw) if raw.lstrip()[:1] in (b"[", b"{") else _yaml(raw)
    except json.JSONDecodeError as error:
        try:
            data = _yaml(raw)
        except (yaml.YAMLError, UnicodeDecodeError):
            raise refuse(f"{file}:{error.lineno}: not JSON: {error.msg}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        raise refuse(f"{place}: not YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise refuse(f"{file}: not JSON or YAML: {str(error).splitlines()[0]}") from None
    if isinstance(data, dict) and isinstance(data.get("jobs"), list):
        data = data["jobs"]
    if not isinstance(data, list):
        raise refuse(f"{file} holds no list of jobs")
    return data


def _yaml(raw: bytes) -> Any:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(raw, loader)  # noqa: S506 - both are safe loaders


def _name(number: int, item: Any) -> str:
    job_id = item.get("id") if isinstance(item, dict) else None
    return f"job {job_id}" if isinstance(job_id, int) else f"jobs[{number}]"
