"""The tests' booted machines, of which several run at once: none touches another's services."""

from __future__ import annotations

import pytest

from tests.servers.debian import Machine, machine

pytestmark = [pytest.mark.distro, pytest.mark.timeout(300)]

_UNIT = "same-name.service"


def test_a_service_outlives_its_namesakes_end_in_another_machine() -> None:
    with machine() as one, machine() as other:
        for debian in (one, other):
            debian.run("systemd-run", f"--unit={_UNIT}", "sleep", "infinity")
        pid = one.show(_UNIT, "MainPID")

        other.run("systemctl", "kill", "--signal=KILL", _UNIT)
        other.run("systemctl", "stop", _UNIT, check=False)

        assert one.show(_UNIT, "ActiveState") == "active"
        assert one.show(_UNIT, "MainPID") == pid
        assert _processes(one) == [pid]
        assert _processes(other) == []


def _processes(debian: Machine) -> list[str]:
    """Return the ids of what runs in the unit's control group, as the machine counts them."""
    group = f"/sys/fs/cgroup/system.slice/{_UNIT}/cgroup.procs"
    return debian.run("cat", group, check=False).stdout.split()
