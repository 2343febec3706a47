"""Both packages and their signed repositories, built once for all processes of a run."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distro.built import Built, copy_of_tree, make, signing_home, version_of

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
    run = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        run = run.parent  # what the processes of one run share
    directory = run / "built"
    with (run / "built.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (directory / "done").exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            _build(directory)
            (directory / "done").touch()
    tree = directory / "tree"
    return Built(tree, version_of(tree))


def _build(directory: Path) -> None:
    tree = copy_of_tree(directory / "tree")
    home = signing_home(directory / "gnupg", _KEY)
    url = "http://repository.invalid"
    try:
        make(tree, "repo", GNUPGHOME=str(home), REPO_KEY=_KEY, REPO_URL=url)
    finally:
        # gpg leaves its agent running.
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True, timeout=60)
