"""Both packages and their signed repositories, built once for all tests that install them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

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
