"""Upgrades: from the old monitor's 1.3, and from our own version before."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import websockets.exceptions

from tests.distro.built import Built, served
from tests.distro.conftest import add_repository
from tests.distro.old import EDITED_CONFIG, OLD_CONFIG, blocking_deb, earlier_deb, old_deb
from tests.distro.peers import CONFIG, LOG, UNIT, Installed, send
from tests.servers.debian import machine

pytestmark = [pytest.mark.distro, pytest.mark.timeout(600)]

_UPGRADE = ("apt-get", "-qq", "--yes", "--no-install-recommends", "install", "recodex-monitor")


@pytest.mark.parametrize("conffile", [True, False], ids=["conffile", "mere file"])
@pytest.mark.parametrize("config", [OLD_CONFIG, EDITED_CONFIG], ids=["as shipped", "edited"])
def test_the_old_monitor_is_replaced_and_its_config_goes_on(
    built: Built, tmp_path: Path, conffile: bool, config: str
) -> None:
    package = old_deb(tmp_path, conffile=conffile)
    with machine(full=True) as debian, served(built.repository, debian.host_address) as url:
        daemon = Installed(debian)
        debian.copy_in(package, "/srv/old.deb")
        debian.run("dpkg", "--install", "/srv/old.deb")
        debian.write(CONFIG, config)
        assert debian.show(UNIT, "ActiveState") == "active"
        assert debian.show(UNIT, "Type") == "simple"

        add_repository(debian, url, built)
        said = debian.run(*_UPGRADE)

        assert "onfiguration file" not in said.stdout + said.stderr
        # What 1.x took leniently is reported before the restart.
        warned = f"recodex-monitor: {CONFIG}:10: logger.level: expected debug, info, "
        assert (warned in said.stdout + said.stderr) == (config == EDITED_CONFIG)
        daemon.wait_active()
        assert debian.show(UNIT, "Type") == "notify-reload"
        assert debian.show(UNIT, "UnitFileState") == "enabled"
        assert debian.path(CONFIG).read_text() == config
        assert debian.output("stat", "-c", "%a %U:%G", CONFIG) == "640 root:recodex"
        assert debian.output("stat", "-c", "%a %U:%G", "/etc/recodex/monitor") == "755 root:root"
        assert not debian.path("/usr/lib/python3/dist-packages/monitor").exists()
        assert debian.path(LOG).read_text().startswith("old monitor\n")
        assert sorted(file.name for file in debian.path("/etc/recodex/monitor").iterdir()) == [
            "config.yml"
        ]
        assert debian.output("dpkg", "--verify", "recodex-monitor") in {
            "",
            f"??5?????? c {CONFIG}",
        }
        assert daemon.relays("student_1")


def test_a_failed_upgrade_leaves_the_old_config_where_it_was(built: Built, tmp_path: Path) -> None:
    package = old_deb(tmp_path, conffile=False)
    with machine(full=True) as debian:
        debian.copy_in(package, "/srv/old.deb")
        debian.run("dpkg", "--install", "/srv/old.deb")
        debian.write(CONFIG, EDITED_CONFIG)
        debian.copy_in(built.deb, "/srv/new.deb")
        # Another package has one of the new files: dpkg gives up in the midst of unpacking.
        debian.copy_in(blocking_deb(tmp_path), "/srv/blocking.deb")
        debian.run("dpkg", "--install", "/srv/blocking.deb")
        failed = debian.run("dpkg", "--install", "/srv/new.deb", check=False)
        assert failed.returncode != 0
        assert debian.path(CONFIG).read_text() == EDITED_CONFIG
        assert debian.output("dpkg-query", "-W", "-f=${Version}", "recodex-monitor") == "1.3.0-1"
        debian.run("dpkg", "--remove", "blocking")
        debian.run("dpkg", "--install", "/srv/new.deb")
        assert debian.path(CONFIG).read_text() == EDITED_CONFIG
        Installed(debian).wait_active()


def test_an_upgrade_keeps_the_users_config_and_drains_the_clients(
    built: Built, tmp_path: Path
) -> None:
    package = earlier_deb(built.deb, tmp_path)
    with machine(full=True) as debian, served(built.repository, debian.host_address) as url:
        daemon = Installed(debian)
        debian.copy_in(package, "/srv/before.deb")
        debian.run("dpkg", "--install", "/srv/before.deb")
        daemon.configure({"relay": {"max_clients": 1234}})
        daemon.restart()
        config = debian.path(CONFIG).read_text()
        add_repository(debian, url, built)
        with daemon.subscriber("student_1") as subscriber, daemon.broker() as broker:
            send(broker, "student_1", "STARTED")
            # The default config has changed too: unattended, the user's is chosen like this.
            debian.run(*_UPGRADE, "-o", "Dpkg::Options::=--force-confold")
            assert json.loads(subscriber.recv(timeout=10)) == {"command": "STARTED"}
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                subscriber.recv(timeout=10)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        daemon.wait_active()
        version = debian.output("dpkg-query", "-W", "-f=${Version}", "recodex-monitor")
        assert version == built.version
        assert debian.path(CONFIG).read_text() == config
        assert debian.output("stat", "-c", "%a %U:%G", CONFIG) == "640 root:recodex"
        assert debian.path(f"{CONFIG}.dpkg-dist").exists()
        assert daemon.relays("student_2")
        assert daemon.restarts() == 0
