"""Probes in the daemon as users run it: killed, reloaded, sharded, with a disk that is full."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.probes.misbehaving import Misbehaving
from tests.servers.daemon import ROOT, StartDaemon
from tests.waiting import wait_for

pytestmark = pytest.mark.end_to_end


def results(directory: Path) -> list[dict[str, Any]]:
    db = sqlite3.connect(directory / "spool.db")
    try:
        rows = db.execute("SELECT value FROM message ORDER BY offset").fetchall()
    except sqlite3.OperationalError:
        return []
    finally:
        db.close()
    return [json.loads(value) for (value,) in rows]


def oldest_of_the_newest(directory: Path) -> float:
    newest: dict[int, float] = {}
    for result in results(directory):
        newest[result["job_id"]] = result["scheduled_at"]
    return min(newest.values())


def config(server: Misbehaving, count: int = 30, **fields: Any) -> dict[str, Any]:
    jobs = [{"id": i, "url": server.url("/ok"), "interval": 0.5} for i in range(1, count + 1)]
    return {"relay": False, "probes": {"jobs": jobs, **fields}}


def test_kill_9_loses_nothing_that_was_checked_a_second_ago(
    server: Misbehaving, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    first = start_daemon(config(server)).wait_ready()
    wait_for(lambda: len(results(tmp_path)) > 150, "results")
    # A disk that stalls just then is not the daemon's fault.
    wait_for(lambda: oldest_of_the_newest(tmp_path) > time.time() - 0.9, "the disk to answer")
    written = results(tmp_path)
    killed_at = time.time()
    first.process.send_signal(signal.SIGKILL)
    first.process.wait(60)
    second = start_daemon(config(server)).wait_ready()
    wait_for(
        lambda: sum(found["scheduled_at"] > killed_at for found in results(tmp_path)) > 60,
        "results after the restart",
    )
    assert second.stop() == 0
    found = results(tmp_path)
    names = [(result["job_id"], result["scheduled_at"]) for result in found]
    assert len(set(names)) == len(names)
    assert found[: len(written)] == written
    by_job: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for result in found:
        by_job[result["job_id"]].append(result)
    for mine in by_job.values():
        # one grid before and after
        assert len({round(result["scheduled_at"] % 0.5, 3) % 0.5 for result in mine}) == 1
        before = [result for result in mine if result["scheduled_at"] < killed_at]
        for one, two in pairwise(before):
            step = two["scheduled_at"] - one["scheduled_at"]
            assert step == pytest.approx(0.5 * (1 + two["missed"]), abs=0.002)


def test_sigterm_writes_what_is_known(server: Misbehaving, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(config(server)).wait_ready()
    before = len(server.requests)
    wait_for(lambda: len(server.requests) > before + 60, "checks")
    assert daemon.stop() == 0
    # all that was asked has its result, but for what the stop cut off
    assert len(results(daemon.directory)) >= len(server.requests) - before - 1


def test_a_full_disk_costs_results_and_not_the_schedule(
    server: Misbehaving, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    settings = config(server, 40)
    daemon = start_daemon({**settings, "logger": {"file": "/dev/null"}}).wait_ready()
    wait_for(lambda: len(results(tmp_path)) > 40, "results")
    # No file of the daemon may grow: to its writes that is the same as a disk that is full.
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (4096, hard))
    wait_for(
        lambda: "bus degraded: cannot write the spool" in daemon.notices("STATUS")[-1],
        "the state in STATUS=",
    )
    before = len(server.requests)
    wait_for(lambda: len(server.requests) > before + 160, "checks that continue")
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (hard, hard))
    wait_for(lambda: "bus degraded" not in daemon.notices("STATUS")[-1], "the state in STATUS=")
    mended = time.time()
    wait_for(
        lambda: any(found["checked_at"] > mended for found in results(tmp_path)),
        "results again",
    )
    assert daemon.stop() == 0
    # what waited in memory is there, and the schedule did not wait for the disk
    found = results(tmp_path)
    for job_id in range(1, 41):
        mine = [result for result in found if result["job_id"] == job_id]
        for one, two in pairwise(mine):
            step = two["scheduled_at"] - one["scheduled_at"]
            assert step == pytest.approx(0.5 * (1 + two["missed"]), abs=0.002)
    assert sum(result["missed"] for result in found) < len(found) / 2


def test_without_a_descriptor_left_no_site_is_down_and_the_log_says_so_once(
    server: Misbehaving, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    urls = [server.url("/ok"), server.url("/ok", "localhost"), f"tcp://127.0.0.1:{server.port}"]
    jobs = [
        {"id": number, "kind": url.partition(":")[0], "url": url, "interval": 0.5}
        for number, url in enumerate(urls, 1)
    ]
    daemon = start_daemon({"relay": False, "probes": {"jobs": jobs}}).wait_ready()
    wait_for(lambda: len({found["job_id"] for found in results(tmp_path)}) == 3, "results")
    soft, hard = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    # What is open stays open.
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (3, hard))
    said = "checks cannot be made: out of file descriptors; there are no results of them"
    daemon.wait_log(said)
    wait_for(
        lambda: (
            "probes degraded" in daemon.notices("STATUS")[-1]
            and int((re.findall(r"(\d+) missed", daemon.notices("STATUS")[-1]) or ["0"])[0]) > 12
        ),
        "runs that are missed",
    )
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (soft, hard))
    mended = time.time()
    wait_for(
        lambda: len({f["job_id"] for f in results(tmp_path) if f["checked_at"] > mended}) == 3,
        "results again",
    )
    assert daemon.stop() == 0
    found = results(tmp_path)
    assert all(result["up"] for result in found)
    assert sum(result["missed"] for result in found) > 12
    assert daemon.log.count("checks cannot be made") == 1
    assert "is down" not in daemon.log


def delete(file: Path) -> None:
    file.unlink()


def put_a_backup_back(file: Path) -> None:
    backup = file.with_name("backup")
    with (
        contextlib.closing(sqlite3.connect(file)) as source,
        contextlib.closing(sqlite3.connect(backup)) as target,
    ):
        source.backup(target)
    backup.replace(file)


@pytest.mark.parametrize("loss", [delete, put_a_backup_back])
@pytest.mark.parametrize("name", ["spool.db", "monitor.db"])
def test_a_daemon_whose_file_is_deleted_or_replaced_fails_and_works_when_started_again(
    server: Misbehaving,
    start_daemon: StartDaemon,
    tmp_path: Path,
    name: str,
    loss: Callable[[Path], None],
) -> None:
    def stored() -> int:
        with contextlib.closing(sqlite3.connect(tmp_path / "monitor.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            try:
                return int(db.execute("SELECT count(*) FROM availability_result").fetchone()[0])
            except sqlite3.OperationalError:  # not there yet
                return 0

    settings = {**config(server), "aggregation": {"flush_interval": 0.5}}
    daemon = start_daemon(settings).wait_ready()
    wait_for(lambda: stored() > 60, "rows")
    loss(tmp_path / name)
    assert daemon.wait() == 1
    lines = [line for line in daemon.log.splitlines() if "[ERROR]" in line]
    assert len(lines) == 1
    assert f"stopping: {tmp_path / name} was deleted or replaced while in use" in lines[0]
    before = 0 if (name, loss) == ("monitor.db", delete) else stored()
    again = start_daemon(settings).wait_ready()
    wait_for(lambda: stored() > before + 60, "more rows")
    assert again.stop() == 0


def test_sighup_takes_new_jobs_and_refuses_bad_ones(
    server: Misbehaving, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(config(server, 2)).wait_ready()
    daemon.write_config(config(server, 3))
    daemon.reload()
    daemon.wait_log("checking 3 of 3 jobs")
    bad = config(server, 3)
    bad["probes"]["jobs"][1]["body_regexp"] = "("
    daemon.write_config(bad)
    daemon.reload()
    line = daemon.wait_log("reload failed, nothing changed")
    assert "probes.jobs[1].body_regexp: not a regular expression" in line
    wait_for(
        lambda: any(found["job_id"] == 3 for found in results(daemon.directory)),
        "results of the third job",
    )
    assert daemon.stop() == 0


def test_a_bad_job_in_a_file_is_named_and_left_out_at_the_start_and_at_a_reload(
    server: Misbehaving, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    file = tmp_path / "jobs.json"
    good = {"id": 1, "url": server.url("/ok"), "interval": 0.5}
    bad = [
        {"id": 2, "kind": "websocket", "url": "ws://token@127.0.0.1:1/"},
        {"id": 3, "url": server.url("/ok"), "headers": {"X-One": "\ud800"}},
    ]
    file.write_text(json.dumps([good, bad[0]]))
    settings = {"relay": False, "probes": {"source": "file", "jobs_file": str(file)}}
    daemon = start_daemon(settings).wait_ready()
    daemon.wait_log("job 2: url: has a user without a password")
    file.write_text(json.dumps([good, *bad]))
    daemon.reload()
    daemon.wait_log("job 3: headers.X-One: is not valid Unicode: half of a surrogate pair")
    before = len(results(tmp_path))
    wait_for(lambda: len(results(tmp_path)) > before + 1, "results of the good job")
    assert daemon.log.count("job left out: ") == 2
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.log
    assert {found["job_id"] for found in results(tmp_path)} == {1}


def test_start_producer_checks_its_range_and_no_other(
    server: Misbehaving, start_daemon: StartDaemon
) -> None:
    settings = config(server, 5, websites_per_container=2)
    arguments = ("start-producer", "config.yml")
    daemon = start_daemon(settings, arguments=(*arguments, "2")).wait_ready()
    wait_for(lambda: len(results(daemon.directory)) >= 6, "results")
    assert daemon.stop() == 0
    assert {found["job_id"] for found in results(daemon.directory)} == {3, 4}
    assert {found["producer"] for found in results(daemon.directory)} == {2}

    pod = start_daemon(settings, arguments=arguments, environ={"POD_NAME": "probes-2"})
    pod.wait_ready()
    wait_for(
        lambda: any(found["job_id"] == 5 for found in results(daemon.directory)),
        "results of the last range",
    )
    assert pod.stop() == 0

    beyond = start_daemon(settings, arguments=(*arguments, "4"))
    assert beyond.wait() == 78
    assert "probes.id: there is no range 4: 5 active sites by 2 need 3 producers" in beyond.stderr


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "/usr/bin:/bin", **environ},
    )


def test_probe_shows_where_the_time_goes_and_exits_by_the_state(server: Misbehaving) -> None:
    up = command("probe", server.url("/ok"))
    assert up.returncode == 0, up.stderr
    assert up.stdout.startswith("up")
    for phase in ("resolve", "connect", "tls", "processing", "transfer"):
        assert phase in up.stdout
    down = command("probe", server.url("/status/500"), "--json")
    assert down.returncode == 1
    result = json.loads(down.stdout)
    assert (result["up"], result["status"], result["error"]) == (False, 500, "bad-status: 500")
    assert list(result)[:4] == ["job_id", "url", "scheduled_at", "checked_at"]
    secret = command("probe", server.url("/ok").replace("//", "//me:hunter2@"), "--json")
    assert secret.returncode == 0
    assert "hunter2" not in secret.stdout + secret.stderr


def test_probe_takes_a_configured_job(server: Misbehaving, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text(json.dumps(config(server, 2)))
    assert command("probe", "-c", str(file), "--job", "2").returncode == 0
    lost = command("probe", "-c", str(file), "--job", "7")
    assert lost.returncode == 1
    assert lost.stderr == f"recodex-monitor: {file} has no job 7; there are: 1, 2\n"
    assert command("producers-needed", "-c", str(file)).stdout == "1\n"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("probe",), 2, "expected a URL, or -c FILE and --job ID"),
        (("probe", "gopher://x/"), 2, "there is no kind of check for 'gopher://x/'; expected "),
        (("probe", "http://"), 2, "has no host"),
        (("probe", "ws://token@127.0.0.1:1/"), 2, "URL: has a user without a password"),
        (("probe", "http://x/", "--regexp", "("), 2, "--regexp: not a regular expression"),
        (("probe", "http://x/", "--timeout", "0"), 2, "--timeout: "),
        (("probe", "http://x/", "--status", "x"), 2, "--status: "),
        (("probe", "https://x/", "--ca-file", "/nowhere"), 2, "--ca-file: cannot read /nowhere"),
        (("probe", "dns://x/y", "--expected", "("), 2, "--expected: "),
        (("probe", "ping://x", "--count", "x"), 2, "--count: "),
        (("probe", "http://x/", "--job", "1"), 2, "either a URL, or"),
        (("probe", "-c", "/nowhere.yml", "--job", "1"), 78, "/nowhere.yml: cannot read the file"),
        (("producers-needed", "-c", "/dev/null"), 78, "probes: the section is missing"),
        (("start-producer", "/dev/null"), 2, "expected an ID, or POD_NAME"),
        (("start-producer", "/dev/null", "1"), 78, "/dev/null: probes: the section is missing"),
        (("start-producer", "/dev/null", "0"), 2, "ranges are numbered from 1"),
        (("topic", "x"), 1, "there is no spool"),
        (("topic",), 2, "NAME"),
    ],
)
def test_nonsense_gets_one_clear_line(
    tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    done = command(*arguments, STATE_DIRECTORY=str(tmp_path))
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_topic_shows_what_there_is_and_follows(
    server: Misbehaving, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(config(server, 2)).wait_ready()
    state = str(daemon.directory)
    wait_for(lambda: len(results(daemon.directory)) >= 4, "results")
    arguments = ("topic", "website_availability", "-c", str(daemon.config_file))
    shown = command(*arguments, "--last", "3", "--json", STATE_DIRECTORY=state)
    assert shown.returncode == 0, shown.stderr
    lines = [json.loads(line) for line in shown.stdout.splitlines()]
    assert len(lines) == 3
    assert lines[0]["headers"]["ce_type"] == "org.recodex.monitor.result"
    assert lines[0]["value"]["url"] == server.url("/ok")
    lost = command("topic", "nope", "-c", str(daemon.config_file), STATE_DIRECTORY=state)
    assert lost.returncode == 1
    assert "there are: website_availability" in lost.stderr
    with subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *arguments, "--follow", "--last", "0"],
        stdout=subprocess.PIPE,
        text=True,
        env={"PATH": "/usr/bin:/bin", "STATE_DIRECTORY": state},
    ) as following:
        assert following.stdout is not None
        line = following.stdout.readline()
        following.send_signal(signal.SIGINT)
        assert following.wait(60) == 0
    assert '"url":"http://127.0.0.1' in line
    assert daemon.stop() == 0
