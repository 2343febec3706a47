"""Jobs from a file that changes while the part runs."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from monitor.probes.part import Probes
from monitor.probes.settings import ProbesSettings
from tests.probes.misbehaving import Misbehaving
from tests.probes.running import running
from tests.waiting import until

pytestmark = [pytest.mark.integration_test, pytest.mark.usefixtures("bus_directory")]


def write(file: Path, items: list[dict[str, Any]]) -> None:
    part = file.with_suffix(".new")
    part.write_text(json.dumps(items))
    part.replace(file)


async def test_a_jobs_file_is_read_again_when_it_changes_and_a_bad_job_stops_no_other(
    server: Misbehaving, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "jobs.json"
    good = {"id": 1, "url": server.url("/ok"), "interval": 0.5}
    write(file, [good])

    async with running(ProbesSettings(source="file", jobs_file=str(file))) as probes:
        await probes.more(lambda results: results)
        runner = probes.part.runner
        assert runner is not None
        write(file, [good, {**good, "id": 2}, {**good, "id": 3, "body_regexp": "["}])
        await until(lambda: runner.job_ids() == [1, 2])
        assert probes.part.state().health == "degraded"
        await probes.more(lambda results: any(r.job_id == 2 for r in results))
        file.write_text("[{")
        await until(lambda: "not JSON" in probes.part.state().summary)
        assert runner.job_ids() == [1, 2]
        write(file, [{**good, "id": 5}])
        await until(lambda: runner.job_ids() == [5])
        assert probes.part.state().health == "ok"
    assert any("job 3: body_regexp" in message for message in caplog.messages)


def _says(part: Probes, text: str) -> bool:
    return text in part.state().summary


def _has_job(part: Probes, job_id: int) -> bool:
    return part.runner is not None and part.runner.job_ids() == [job_id]


async def test_after_whatever_a_jobs_file_held_the_next_good_one_is_read(
    server: Misbehaving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.probes.part._RETRY_S", (0.1, 0.2))
    monkeypatch.setattr("monitor.probes.jobs_file._LOOK_S", 0.1)
    file = tmp_path / "jobs.yml"
    good = {"id": 1, "url": server.url("/ok"), "interval": 0.5}
    write(file, [good])
    line = f"- {{id: 1, url: {server.url('/ok')}, name: %s}}\n"

    async with running(ProbesSettings(source="file", jobs_file=str(file))) as probes:
        runner = probes.part.runner
        assert runner is not None
        for number, (content, said) in enumerate(
            [
                (line % "!!timestamp 2024-13-45", ":1: the tag !!timestamp"),
                (line % "!!int ''", ":1: the value after !!int"),
                ("- " + "[" * 5000, "nest"),
                ("- &a [x, x]\n" + "- &a [*a, *a]\n" * 30, "more than 1000000 values"),
                (None, "a pipe, not a regular file"),
                (line % "a" + "more", "not YAML"),
            ],
            2,
        ):
            if content is None:
                file.unlink()
                os.mkfifo(file)
            else:
                file.write_text(content)
            await until(partial(_says, probes.part, said))
            assert len(runner.job_ids()) == 1
            write(file, [{**good, "id": number}])
            await until(partial(_has_job, probes.part, number))
            assert probes.part.state().health == "ok"
        # A date is a text here.
        file.write_text(line % "2024-13-45")
        await until(lambda: runner.job_ids() == [1])


async def test_of_many_refused_jobs_some_are_logged_and_all_are_counted(
    server: Misbehaving, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "jobs.json"
    write(file, [{"id": 1, "url": server.url("/ok")}, *[{"id": n} for n in range(2, 20_002)]])
    settings = ProbesSettings(source="file", jobs_file=str(file))

    async with running(settings) as probes:
        await probes.reload(settings)
        assert "20000 jobs left out" in probes.part.state().summary

    said = [message for message in caplog.messages if "left out" in message]
    assert len(said) == 101
    assert said[-1] == "19900 more jobs left out"
