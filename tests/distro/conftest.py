"""Fixtures of the distro tests: the packages, and a machine with the daemon installed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import missing
from tests.distro.built import Built, copy_of_tree, make, served, signing_home, version_of
from tests.distro.peers import Installed
from tests.servers.debian import Machine, machine

_KEY = "test@recodex-monitor.invalid"


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, program: Callable[..., str]) -> Built:
    """Build both packages and the repositories, signed with a key of this run."""
    for tool, package in (
        ("dpkg-buildpackage", "dpkg-dev"),
        ("dh", "debhelper"),
        ("dh_python3", "dh-python"),
        ("rpmbuild", "rpm"),
        ("createrepo_c", "createrepo-c"),
        ("apt-ftparchive", "apt-utils"),
        ("gpg", "gnupg"),
    ):
        program(tool, package=package)
    directory = tmp_path_factory.mktemp("built")
    tree = copy_of_tree(directory / "tree")
    home = signing_home(directory / "gnupg", _KEY)
    url = "http://repository.invalid"
    try:
        make(tree, "repo", GNUPGHOME=str(home), REPO_KEY=_KEY, REPO_URL=url)
    finally:
        # gpg leaves its agent running.
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True, timeout=60)
    return Built(tree, version_of(tree))


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


def need(path: Path) -> None:
    """Skip the test for a file that this machine lacks."""
    if not path.exists():
        missing(f"{path} is not there")
