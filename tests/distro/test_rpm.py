"""The rpm: installed into a root, run there by systemd, upgraded and erased.

Fedora's own packages are out of reach here, so the rpm is put into a Debian 13 (its
libraries are there) by rpm itself: what is tested is all but the names of its dependencies.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bus.recorded import BATCHES, DECODED, decode_command
from tests.distro.built import Built
from tests.distro.old import EDITED_CONFIG, old_rpm
from tests.distro.peers import CONFIG, LOG, STATE, UNIT, Installed
from tests.servers.debian import Machine, machine
from tests.waiting import wait_for

pytestmark = [pytest.mark.distro, pytest.mark.timeout(600)]

# Debian 13's rpm; Debian 12's, on the host, needs a flag for that.
_RPM = ("rpm", "--nodeps")


@pytest.fixture(scope="module")
def rooted(built: Built) -> Iterator[tuple[Machine, str]]:
    """Install the rpm into a system that is not running; gives what rpm said of its scripts."""
    with machine(full=True, booted=False) as debian:
        rpm = (*_in_root(debian), "--nodeps")
        known = subprocess.run(["rpm", "--help"], capture_output=True, text=True, timeout=60).stdout
        meant = ("--force-debian",) if "--force-debian" in known else ()
        said = debian.run_beside(*rpm, *meant, "-ivv", str(built.rpm))
        yield debian, said.stderr


def _in_root(debian: Machine) -> tuple[str, ...]:
    """Return the host's rpm for the machine's files, with the database of the machine's own."""
    where = debian.run_in_files("rpm", "--eval", "%{_dbpath}").stdout.strip()
    return ("rpm", f"--root={debian.root}", f"--dbpath={where}")


def scripts(said: str) -> list[str]:
    """Return the names of the scripts that rpm ran, and 'files', in their order."""
    found = []
    for line in said.splitlines():
        matched = re.search(r"%(\w+)\(recodex-monitor[^)]*\): scriptlet start", line)
        if matched:
            found.append(matched[1])
        elif "recodex-monitor" in line and re.match(r"D: create +100755", line):
            found.append("files")
    return list(dict.fromkeys(found))


def test_the_user_comes_before_the_files_and_the_unit_after_them(
    rooted: tuple[Machine, str],
) -> None:
    debian, said = rooted
    assert scripts(said) == ["pre", "files", "post"] or scripts(said) == [
        "prein",
        "files",
        "post",
    ], said[-4000:]
    assert re.search(r"^recodex:", debian.path("/etc/passwd").read_text(), re.M)
    # The preset enabled it: Debian's says yes to all, Fedora's to what it lists.
    wants = debian.path("/etc/systemd/system/multi-user.target.wants/recodex-monitor.service")
    assert wants.is_symlink()


def test_what_lies_there_is_what_the_package_says(rooted: tuple[Machine, str]) -> None:
    debian, _ = rooted
    rpm = _in_root(debian)
    assert debian.run_beside(*rpm, "--verify", "--nodeps", "recodex-monitor").stdout == ""
    flags = debian.run_beside(*rpm, "--query", "--configfiles", "recodex-monitor").stdout
    assert flags.split() == [CONFIG]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CONFIG, "640 root:recodex"),
        ("/etc/recodex/monitor", "755 root:root"),
        ("/usr/bin/recodex-monitor", "755 root:root"),
        ("/usr/share/recodex-monitor/monitor/main.py", "644 root:root"),
        ("/usr/lib/systemd/system/recodex-monitor@.service", "644 root:root"),
        ("/usr/lib/sysusers.d/recodex-monitor.conf", "644 root:root"),
        ("/usr/share/man/man8/recodex-monitor.8.gz", "644 root:root"),
        ("/usr/share/licenses/recodex-monitor/LICENSE", "644 root:root"),
    ],
)
def test_files_have_their_modes_and_owners(
    rooted: tuple[Machine, str], path: str, expected: str
) -> None:
    debian, _ = rooted
    assert debian.run_in_files("stat", "-c", "%a %U:%G", path).stdout.strip() == expected


def test_messages_of_every_codec_are_decoded(rooted: tuple[Machine, str]) -> None:
    debian, _ = rooted
    said = debian.run_in_files(*decode_command()).stdout
    assert json.loads(said) == dict.fromkeys(BATCHES, DECODED)


def test_the_daemon_runs_from_the_installed_tree(rooted: tuple[Machine, str]) -> None:
    debian, _ = rooted
    debian.boot()
    daemon = Installed(debian)
    daemon.wait_active()
    assert debian.show(UNIT, "FragmentPath") == "/usr/lib/systemd/system/recodex-monitor.service"
    daemon.configure({})
    daemon.restart()
    assert daemon.relays("student_1")
    debian.run("systemctl", "reload", UNIT)
    assert daemon.state() == "active"


def test_erasing_stops_it_and_keeps_an_edited_config(rooted: tuple[Machine, str]) -> None:
    debian, _ = rooted
    daemon = Installed(debian)
    debian.run(*_RPM, "-e", "recodex-monitor")
    assert daemon.state() == "inactive"
    assert not debian.path("/usr/share/recodex-monitor").exists()
    assert not debian.path("/usr/bin/recodex-monitor").exists()
    wants = debian.path("/etc/systemd/system/multi-user.target.wants/recodex-monitor.service")
    assert not wants.is_symlink()
    assert debian.path(f"{CONFIG}.rpmsave").exists()
    assert debian.path(LOG).exists()
    assert debian.path(STATE).exists()


def test_it_replaces_the_old_monitor_and_keeps_its_config(built: Built, tmp_path: Path) -> None:
    package = old_rpm(tmp_path)
    with machine(full=True) as debian:
        daemon = Installed(debian)
        debian.copy_in(package, "/srv/old.rpm")
        debian.copy_in(built.rpm, "/srv/new.rpm")
        debian.run(*_RPM, "-i", "/srv/old.rpm")
        debian.write(CONFIG, EDITED_CONFIG)
        debian.run("systemctl", "daemon-reload")
        debian.run("systemctl", "enable", "--now", UNIT)
        assert debian.show(UNIT, "Type") == "simple"
        log = debian.path(LOG)
        wait_for(lambda: log.exists() and log.read_text(), "the old monitor's first line")

        said = debian.run(*_RPM, "-Uvv", "/srv/new.rpm").stderr

        assert debian.output("rpm", "--query", "recodex-monitor") == (
            f"recodex-monitor-{built.version}-1.noarch"
        )
        assert scripts(said)[0] in {"pre", "prein"}
        daemon.wait_active()
        assert debian.show(UNIT, "Type") == "notify-reload"
        assert debian.show(UNIT, "UnitFileState") == "enabled"
        assert debian.path(CONFIG).read_text() == EDITED_CONFIG
        assert debian.output("stat", "-c", "%a %U:%G", CONFIG) == "640 root:recodex"
        assert debian.output("stat", "-c", "%a %U:%G", "/etc/recodex/monitor") == "755 root:root"
        assert not debian.path("/usr/lib/python3/dist-packages/monitor").exists()
        assert log.read_text().startswith("old monitor\n")
        assert daemon.relays("student_1")


def test_the_repositorys_package_and_index_are_signed(built: Built, tmp_path: Path) -> None:
    database = ("--dbpath", str(tmp_path / "rpmdb"))
    key = built.repository / "recodex-monitor.asc"
    subprocess.run(["rpm", *database, "--import", key], check=True, timeout=60)
    checked = subprocess.run(
        ["rpm", *database, "--checksig", "-v", built.repository / "yum" / built.rpm.name],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert re.search(r"Header V4 RSA/SHA256 Signature, key ID \w+: OK", checked.stdout)
    assert checked.returncode == 0
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    index = built.repository / "yum" / "repodata" / "repomd.xml"
    gpg = ("gpg", "--batch", "--no-autostart", "--homedir", home)  # which needs no agent
    for command in ((*gpg, "--import", key), (*gpg, "--verify", f"{index}.asc", index)):
        subprocess.run(
            command,
            check=True,
            capture_output=True,
            timeout=60,
        )
    listed = (built.repository / "yum" / "recodex-monitor.repo").read_text()
    assert "gpgcheck=1\nrepo_gpgcheck=1\n" in listed
