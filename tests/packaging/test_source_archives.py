"""The sdist and the wheel: complete, with metadata, and built without a warning."""

from __future__ import annotations

import email.parser
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.distro.built import TREE, copy_of_tree

pytestmark = [pytest.mark.integration_test, pytest.mark.timeout(1000)]
# What setuptools adds.
ADDED = {"PKG-INFO", "setup.cfg"}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("archives")
    tree = copy_of_tree(directory / "tree")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", directory / "dist", tree],
        capture_output=True,
        text=True,
        timeout=900,
        # Setuptools warns of it.
        env={key: os.environ[key] for key in os.environ if key != "PYTHONDONTWRITEBYTECODE"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = (done.stdout + done.stderr).lower()
    assert "warn" not in re.sub(r"\S*(config_warnings|/warn\.svg)\S*", "", said)
    assert "deprecat" not in said
    return directory / "dist"


def test_the_sdist_has_every_file_of_the_repository(archives: Path) -> None:
    (file,) = archives.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TREE,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ours = {name for name in listed.split("\0") if name and (TREE / name).exists()}
    assert {name for name in names if ".egg-info/" not in name} - ADDED == ours


def test_the_wheel_has_the_program_and_what_it_says_of_itself(archives: Path) -> None:
    (file,) = archives.glob("*.whl")
    with zipfile.ZipFile(file) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = email.parser.BytesParser().parsebytes(wheel.read(metadata))
    assert said["License-Expression"] == "MIT"
    assert said["Author"] == "recodex-monitor developers"
    assert "Programming Language :: Python :: 3.14" in said.get_all("Classifier", [])
    assert any(line.startswith("kubernetes") for line in said.get_all("Requires-Dist", []))
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "monitor"],
        cwd=TREE,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    ours = {name for name in listed.split("\0") if name and (TREE / name).exists()}
    assert {name for name in names if name.startswith("monitor/")} == ours


def test_the_wheel_puts_manual_pages_and_completions_where_they_are_found(
    archives: Path, tmp_path: Path
) -> None:
    (file,) = archives.glob("*.whl")
    with zipfile.ZipFile(file) as wheel:
        shared = {
            name.partition(".data/data/share/")[2]: wheel.read(name).decode()
            for name in wheel.namelist()
            if ".data/data/share/" in name
        }
    assert set(shared) == {
        "bash-completion/completions/recodex-monitor",
        "fish/vendor_completions.d/recodex-monitor.fish",
        "man/man5/recodex-monitor.yml.5",
        "man/man8/recodex-monitor.8",
        "zsh/site-functions/_recodex-monitor",
    }
    for name in ("man/man5/recodex-monitor.yml.5", "man/man8/recodex-monitor.8"):
        assert "@DATE@" not in shared[name]
        page = tmp_path / Path(name).name
        page.write_text(shared[name])
        shown = subprocess.run(
            ["mandoc", "-T", "utf8", page], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        assert "recodex-monitor" in shown
