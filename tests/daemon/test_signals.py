"""The daemon ends when it is asked to, whatever hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.daemon import ROOT, DaemonProcess, StartDaemon
from tests.waiting import wait_for

pytestmark = pytest.mark.integration_test

# Runs the daemon with something in it that hangs, put there by the line in its place.
HANGING = """
import asyncio, sys, threading, time
import monitor.daemon.lifecycle, monitor.main, monitor.relay.part
from monitor.relay.part import Relay
{}
sys.exit(monitor.main.main(sys.argv[1:]))
"""


def with_a_hang(directory: Path, line: str) -> tuple[str, ...]:
    program = directory / "hanging.py"
    program.write_text(HANGING.format(line))
    return (str(program),)


def start_hanging(start_daemon: StartDaemon, directory: Path, line: str) -> DaemonProcess:
    return start_daemon(
        {},
        program=with_a_hang(directory, line),
        environ={"PYTHONPATH": str(ROOT)},
    )


@pytest.mark.parametrize(
    "hang",
    [
        # In the loop: Python, and a call that waits outside of it.
        "Relay.drain = lambda self: exec('while True: pass')",
        "Relay.drain = lambda self: threading.Event().wait()",
        "Relay.drain = lambda self: time.sleep(1000)",
        # A thread that the loop's end waits for.
        "Relay.drain = lambda self: asyncio.to_thread(time.sleep, 1000)",
    ],
)
def test_a_second_signal_ends_it_at_once_whatever_hangs(
    start_daemon: StartDaemon, tmp_path: Path, hang: str
) -> None:
    daemon = start_hanging(start_daemon, tmp_path, hang).wait_ready()
    daemon.process.terminate()
    daemon.wait_log("stopping: SIGTERM")
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.wait() == 1
    assert "stopping at once: a second signal" in daemon.log


@pytest.mark.parametrize(
    ("hang", "status", "said"),
    [
        ("Relay.close = lambda self: time.sleep(1000)", 1, "the end took 6 s"),
        # All was closed in order; only a thread is left, the loop's or another one.
        (
            "Relay.drain = lambda self: asyncio.to_thread(time.sleep, 1000)",
            0,
            "still busy: worker_",
        ),
        (
            "from concurrent.futures import ThreadPoolExecutor as Pool; pool = Pool(1, 'own')\n"
            "Relay.drain = lambda self: asyncio.wrap_future(pool.submit(time.sleep, 1000))",
            0,
            "still busy: own_0",
        ),
    ],
)
def test_one_signal_ends_it_within_a_limit_whatever_hangs(
    start_daemon: StartDaemon, tmp_path: Path, hang: str, status: int, said: str
) -> None:
    daemon = start_hanging(start_daemon, tmp_path, hang).wait_ready()
    daemon.process.terminate()
    assert daemon.wait() == status
    assert f"stopping at once: {said}" in daemon.log


def test_a_start_that_hangs_is_cut_off(start_daemon: StartDaemon, tmp_path: Path) -> None:
    hang = (
        "async def start(self):\n"
        "    monitor.relay.part.logger.info('starting')\n"
        "    await asyncio.Event().wait()\n"
        "Relay.start = start"
    )
    daemon = start_hanging(start_daemon, tmp_path, hang)
    daemon.wait_log("starting")
    assert daemon.stop() == 0


@pytest.mark.parametrize("reading", ["time.sleep(1000)", "exec('while True: pass')"])
def test_a_reload_that_hangs_is_cut_off(
    start_daemon: StartDaemon, tmp_path: Path, reading: str
) -> None:
    hang = (
        "load, calls = monitor.daemon.lifecycle.load, []\n"
        "def slow(file):\n"
        "    calls.append(file)\n"
        f"    return load(file) if len(calls) == 1 else {reading}\n"
        "monitor.daemon.lifecycle.load = slow\n"
        # The interpreter's own end, which takes long while a thread is busy, is not waited for.
        "import atexit\n"
        "atexit.register(time.sleep, 1000)"
    )
    daemon = start_hanging(start_daemon, tmp_path, hang).wait_ready()
    daemon.process.send_signal(signal.SIGHUP)
    wait_for(lambda: daemon.notices("RELOADING"), "the reload to begin")
    assert daemon.stop() == 0
    assert "stopped" in daemon.log
    assert "stopping at once" not in daemon.log


def test_a_refused_reload_leaves_the_daemon_as_it_was(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon({}).wait_ready()
    good = daemon.config_file.read_text()
    for bad, said in (
        (None, "a pipe, not a regular file"),
        ("relay: {keep_idle: !!int ''}", "config.yml:1: the value after !!int"),
        ("relay: {keep_idle: !!timestamp zz}", "config.yml:1: the tag !!timestamp"),
        ("relay: " + "[" * 5000, "nest"),
        ("a0: &a0 {a: 1}\n" + "".join(
            f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 20)
        ), "more than 1000000 values"),
    ):  # fmt: skip
        daemon.config_file.unlink()
        if bad is None:
            os.mkfifo(daemon.config_file)
        else:
            daemon.config_file.write_text(bad)
        daemon.reload()
        assert "reload failed, nothing changed" in daemon.wait_log(said)
    daemon.config_file.unlink()
    daemon.config_file.write_text(good)
    daemon.reload()
    daemon.wait_log("reloaded")
    assert daemon.stop() == 0


def test_a_log_file_that_nobody_reads_holds_up_neither_stderr_nor_the_end(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    daemon = start_daemon({"logger": {"file": str(fifo)}}).wait_ready()
    wait_for(lambda: "ready: " in daemon.stderr, "the line on stderr")
    assert "cannot write" in daemon.stderr
    assert daemon.stop() == 0


def test_a_log_file_that_takes_nothing_holds_up_neither_stderr_nor_the_end(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
    # Full: the next write waits.
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    try:
        daemon = start_daemon({"logger": {"file": str(fifo)}}).wait_ready()
        wait_for(lambda: "ready: " in daemon.stderr, "the line on stderr")
        assert daemon.stop() == 0
        assert "stopped" in daemon.stderr
    finally:
        os.close(writing)
        os.close(reading)


def test_sigusr1_opens_the_log_again_and_ends_nothing(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    daemon = start_daemon({}).wait_ready()
    daemon.wait_log("ready: ")
    daemon.log_file.rename(tmp_path / "moved.log")
    daemon.process.send_signal(signal.SIGUSR1)
    daemon.reload()
    daemon.wait_log("reloaded")
    assert daemon.stop() == 0


def test_signals_of_other_daemons_and_many_reloads_end_nothing(start_daemon: StartDaemon) -> None:
    daemon = start_daemon({}).wait_ready()
    for number in (signal.SIGUSR2, signal.SIGIO, signal.SIGPWR):
        daemon.process.send_signal(number)
        daemon.wait_log(f"{number.name} has no meaning here")
    for _ in range(50):
        daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_log("reloaded")
    assert daemon.stop() == 0


@pytest.mark.parametrize("closed", ["<&-", "2>&-", ">&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_others(tmp_path: Path, closed: str) -> None:
    file = tmp_path / "config.yml"
    log = tmp_path / "monitor.log"
    config: dict[str, Any] = {
        "logger": {"file": str(log)},
        "websocket_uri": ["127.0.0.1", 0],
        "zeromq_uri": ["127.0.0.1", 0],
    }
    file.write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [
            "sh",
            "-c",
            f'exec "$0" "$1" -c "$2" {closed}',
            sys.executable,
            str(ROOT / "main.py"),
            file,
        ],
        env={**os.environ, "STATE_DIRECTORY": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: log.exists() and "ready: " in log.read_text(), "the daemon to be ready")
        for number in (0, 1, 2):
            assert Path(f"/proc/{process.pid}/fd/{number}").readlink() == Path("/dev/null")
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
