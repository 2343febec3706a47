"""Fixtures of the distro tests: a machine, and one with the daemon installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.distro.built import Built, served
from tests.distro.peers import Installed
from tests.servers.debian import Machine, machine


@pytest.fixture(scope="module")
def bare() -> Iterator[Machine]:
    """Boot a Debian 13 that has none of the daemon's dependencies yet."""
    with machine() as debian:
        yield debian


@pytest.fixture(scope="module")
def installed(bare: Machine, built: Built) -> Iterator[Installed]:
    """Install the daemon the way a user does: two lines, apt update, apt install."""
    with served(built.repository, bare.host_address) as url:
        add_repository(bare, url, built)
        bare.run("apt-get", "-qq", "--yes", "--no-install-recommends", "install", "recodex-monitor")
        yield Installed(bare)


def add_repository(debian: Machine, url: str, built: Built) -> None:
    """Add the repository as its two lines say, and read its index alone: Debian's is there."""
    key = "/etc/apt/keyrings/recodex-monitor.asc"
    debian.copy_in(built.repository / "recodex-monitor.asc", key)
    line = f"deb [signed-by={key}] {url}/apt ./\n"
    debian.write("/etc/apt/sources.list.d/recodex-monitor.list", line)
    debian.run(
        *("apt-get", "-qq", "update"),
        *("-o", "Dir::Etc::SourceList=sources.list.d/recodex-monitor.list"),
        *("-o", "Dir::Etc::SourceParts=-", "-o", "APT::Get::List-Cleanup=0"),
    )
