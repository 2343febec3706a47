"""apt install on a Debian 13: what is there, and how the daemon lives under systemd.

The tests share one machine and go through an operator's days in the order of this file;
each leaves the daemon running.
"""

from __future__ import annotations

import json
import re

import pytest
import websockets.exceptions
import yaml

from tests.distro.built import Built
from tests.distro.peers import CONFIG, LOG, STATE, UNIT, Installed, send
from tests.waiting import wait_for

pytestmark = [pytest.mark.distro, pytest.mark.timeout(600)]


def stat(daemon: Installed, path: str) -> str:
    return daemon.debian.output("stat", "-c", "%a %U:%G", path)


def test_apt_install_alone_starts_the_daemon_as_its_user(installed: Installed) -> None:
    installed.wait_active()
    show = installed.debian.show
    assert show(UNIT, "Type") == "notify-reload"
    assert show(UNIT, "UnitFileState") == "enabled"
    assert re.search(r"relay: 0 clients", show(UNIT, "StatusText"))
    owner = installed.debian.output("stat", "-c", "%U", f"/proc/{installed.main_pid()}")
    assert owner == "recodex"


def test_the_version_is_the_packages(installed: Installed, built: Built) -> None:
    said = installed.debian.output("/usr/bin/recodex-monitor", "--version")
    assert said == f"recodex-monitor {built.version}"
    package = installed.debian.output("dpkg-query", "-W", "-f=${Version}", "recodex-monitor")
    assert package == built.version


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CONFIG, "640 root:recodex"),
        ("/etc/recodex/monitor", "755 root:root"),
        ("/usr/bin/recodex-monitor", "755 root:root"),
        ("/usr/share/recodex-monitor/monitor/main.py", "644 root:root"),
        ("/usr/share/recodex-monitor/kafka/__init__.py", "644 root:root"),
        ("/usr/lib/systemd/system/recodex-monitor.service", "644 root:root"),
        ("/usr/lib/systemd/system/recodex-monitor@.service", "644 root:root"),
        ("/usr/lib/sysusers.d/recodex-monitor.conf", "644 root:root"),
        ("/usr/share/man/man8/recodex-monitor.8.gz", "644 root:root"),
        ("/usr/share/man/man5/recodex-monitor.yml.5.gz", "644 root:root"),
        ("/var/log/recodex", "750 recodex:recodex"),
        (LOG, "640 recodex:recodex"),
        (STATE, "750 recodex:recodex"),
    ],
)
def test_files_have_their_modes_and_owners(installed: Installed, path: str, expected: str) -> None:
    installed.wait_active()
    assert stat(installed, path) == expected


def test_the_daemons_user_can_write_nothing_of_its_own_code_or_config(installed: Installed) -> None:
    writable = installed.debian.output(
        *("find", "/usr/share/recodex-monitor", "/usr/bin/recodex-monitor", "/etc/recodex"),
        *("(", "!", "-user", "root", "-o", "-perm", "/022", ")", "!", "-type", "l"),
    )
    assert writable == ""


def test_the_unit_files_have_nothing_that_systemd_minds(installed: Installed) -> None:
    units = ("recodex-monitor.service", "recodex-monitor@consumer.service")
    said = installed.debian.run(
        "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *units
    )
    assert said.stderr == ""


def test_the_journal_and_the_log_file_both_have_the_start(
    installed: Installed, built: Built
) -> None:
    start = f"recodex-monitor {built.version} starts with {CONFIG}"
    assert start in installed.debian.journal(UNIT)
    log = installed.debian.path(LOG).read_text()
    assert re.search(
        rf"^\[[-0-9:, ]+\] \[monitor\.daemon\] \[INFO\] {re.escape(start)}$", log, re.M
    )


def test_a_message_goes_from_a_broker_to_a_browser_outside_the_machine(
    installed: Installed,
) -> None:
    installed.configure({})
    installed.restart()
    assert installed.relays("student_1")


def test_a_reload_keeps_the_process_and_its_clients_and_applies_the_change(
    installed: Installed,
) -> None:
    before = installed.main_pid()
    with installed.subscriber("student_2") as subscriber, installed.broker() as broker:
        installed.configure({"relay": {"max_clients": 1}})
        installed.debian.run("systemctl", "reload", UNIT)
        with pytest.raises(websockets.exceptions.WebSocketException):  # noqa: SIM117
            with installed.subscriber("student_2") as second:
                second.recv(timeout=10)
        send(broker, "student_2", "STARTED")
        assert json.loads(subscriber.recv(timeout=10)) == {"command": "STARTED"}
    assert installed.main_pid() == before
    installed.configure({})
    installed.debian.run("systemctl", "reload", UNIT)
    wait_for(lambda: installed.relays("student_3"), "a second client after the reload")


def test_a_bad_reload_changes_nothing_and_is_in_the_journal(installed: Installed) -> None:
    before = installed.main_pid()
    good = installed.debian.path(CONFIG).read_text()
    with installed.subscriber("student_4") as subscriber, installed.broker() as broker:
        installed.configure(good + "relay: {max_client: 1}\n")
        installed.debian.run("systemctl", "reload", UNIT, check=False)
        line = "relay.max_client: unknown key; did you mean max_clients?"
        wait_for(lambda: line in installed.debian.journal(UNIT), "the reason in the journal")
        assert f"nothing changed: {CONFIG}:" in installed.debian.journal(UNIT)
        send(broker, "student_4", "STARTED")
        assert json.loads(subscriber.recv(timeout=10)) == {"command": "STARTED"}
    assert installed.main_pid() == before
    assert installed.state() == "active"
    installed.configure(good)


def test_a_bad_config_ends_with_78_and_is_not_restarted(installed: Installed) -> None:
    good = installed.debian.path(CONFIG).read_text()
    installed.configure(good + "probs: true\n")
    started = installed.debian.run("systemctl", "restart", UNIT, check=False)
    assert started.returncode != 0
    assert installed.state() == "failed"
    assert installed.debian.show(UNIT, "ExecMainStatus") == "78"
    assert installed.restarts() == 0
    assert f"{CONFIG}:" in installed.tail()
    assert "probs: unknown key" in installed.tail()
    installed.configure(good)
    installed.restart()


def test_a_killed_daemon_is_restarted(installed: Installed) -> None:
    before, restarts = installed.main_pid(), installed.restarts()
    installed.debian.run("bash", "-c", f"kill -KILL {before}")
    wait_for(lambda: installed.restarts() == restarts + 1, "systemd's restart")
    installed.wait_active()
    assert installed.main_pid() != before
    assert installed.relays("student_5")


def test_a_stuck_daemon_is_restarted_by_the_watchdog(installed: Installed) -> None:
    drop_in = "/etc/systemd/system/recodex-monitor.service.d/test.conf"
    installed.debian.write(drop_in, "[Service]\nWatchdogSec=2\n")
    installed.debian.run("systemctl", "daemon-reload")
    installed.restart()
    before, restarts = installed.main_pid(), installed.restarts()
    installed.debian.run("bash", "-c", f"kill -STOP {before}")
    wait_for(lambda: installed.restarts() == restarts + 1, "the watchdog", limit_s=60)
    assert "Watchdog timeout" in installed.debian.journal(UNIT)
    installed.wait_active()
    assert installed.relays("student_6")
    installed.debian.path(drop_in).unlink()
    installed.debian.run("systemctl", "daemon-reload")
    installed.restart()


def test_a_full_disk_under_the_log_does_not_stop_the_relay(installed: Installed) -> None:
    run = installed.debian.run
    run("systemctl", "stop", UNIT)
    run("mount", "-t", "tmpfs", "-o", "size=64k,mode=750", "tmpfs", "/var/log/recodex")
    run("chown", "recodex:recodex", "/var/log/recodex")
    installed.restart()
    filler = run("dd", "if=/dev/zero", "of=/var/log/recodex/filler", "bs=4k", check=False)
    assert "No space left" in filler.stderr
    # Each finished channel is a line in the log: more than what is left in its last page.
    with installed.broker() as broker:
        for number in range(200):
            send(broker, f"full_{number}", "FINISHED")
    wait_for(lambda: "No space left" in installed.debian.journal(UNIT), "the journal's word of it")
    assert installed.relays("student_7")
    assert installed.restarts() == 0
    run("systemctl", "stop", UNIT)
    run("umount", "/var/log/recodex")
    installed.restart()


def test_a_reboot_brings_it_back(installed: Installed) -> None:
    installed.debian.reboot()
    installed.wait_active()
    assert installed.relays("student_8")


def test_a_disabled_one_stays_down_after_a_reboot(installed: Installed) -> None:
    installed.debian.run("systemctl", "disable", UNIT)
    installed.debian.reboot()
    assert installed.state() == "inactive"
    installed.debian.run("systemctl", "enable", "--now", UNIT)
    installed.wait_active()


def test_a_reinstall_keeps_the_config_and_drains_the_clients(installed: Installed) -> None:
    installed.configure({"relay": {"max_clients": 1234}})
    before = installed.debian.path(CONFIG).read_text()
    with installed.subscriber("student_9") as subscriber, installed.broker() as broker:
        send(broker, "student_9", "STARTED")
        installed.debian.run("apt-get", "-qq", "--yes", "--reinstall", "install", "recodex-monitor")
        assert json.loads(subscriber.recv(timeout=10)) == {"command": "STARTED"}
        with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
            subscriber.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
    installed.wait_active()
    assert installed.debian.path(CONFIG).read_text() == before
    assert stat(installed, CONFIG) == "640 root:recodex"
    assert installed.relays("student_10")


def test_a_part_without_its_package_names_the_one_to_install(installed: Installed) -> None:
    installed.configure({"probes": {"jobs": [{"id": 1, "url": "http://127.0.0.1:9/"}]}})
    installed.debian.run("systemctl", "restart", UNIT, check=False)
    wait_for(
        lambda: re.search(
            r"probes needs the Python module \w+; install python3-", installed.debian.journal(UNIT)
        ),
        "the package",
    )
    installed.configure({})
    installed.restart()


def test_the_log_has_no_traceback_after_all_this(installed: Installed) -> None:
    assert "Traceback" not in installed.debian.path(LOG).read_text()
    assert "Traceback" not in installed.debian.journal(UNIT)


def test_remove_keeps_the_config_and_purge_leaves_nothing(installed: Installed) -> None:
    before = yaml.safe_load(installed.debian.path(CONFIG).read_text())
    installed.debian.run("apt-get", "-qq", "--yes", "remove", "recodex-monitor")
    assert installed.state() == "inactive"
    assert yaml.safe_load(installed.debian.path(CONFIG).read_text()) == before
    assert installed.debian.path(LOG).exists()
    assert not installed.debian.path("/usr/share/recodex-monitor").exists()
    installed.debian.run("apt-get", "-qq", "--yes", "purge", "recodex-monitor")
    left = installed.debian.output(
        *("find", "/etc", "/usr", "/var/log", "/var/lib", "/run/systemd/system"),
        *("-path", "*recodex*", "-not", "-path", "*apt*"),
    )
    assert left == ""
