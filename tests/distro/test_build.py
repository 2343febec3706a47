"""The packages as files: the same bytes each time, nothing that a linter minds, no strays."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.distro.built import EPOCH, FAST, TREE, Built, copy_of_tree, make

pytestmark = [pytest.mark.distro, pytest.mark.timeout(600)]


def test_two_builds_give_the_same_bytes(built: Built, tmp_path: Path) -> None:
    # Another directory, umask, time zone and locale, and files that are newer.
    again = copy_of_tree(tmp_path / "elsewhere" / "with a space")
    for file in again.rglob("*"):
        if file.is_file():
            os.utime(file)
            file.chmod(0o700 if file.stat().st_mode & 0o100 else 0o600)
    before = os.umask(0o077)
    try:
        make(again, "deb", "rpm", TZ="Pacific/Auckland", LC_ALL="C")
    finally:
        os.umask(before)
    for package in (built.deb, built.rpm):
        other = again / "dist" / package.name
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (package, other)]
        assert digests[0] == digests[1], package.name


def test_lintian_finds_no_error_and_no_warning(built: Built, program: Callable[..., str]) -> None:
    lintian = program("lintian", package="lintian")
    done = subprocess.run(
        [lintian, "--fail-on", "error,warning", "--allow-root", built.deb],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.stdout, done.returncode) == ("", 0)


def test_rpmlint_finds_no_error_and_no_warning(built: Built, program: Callable[..., str]) -> None:
    rpmlint = program("rpmlint", package="rpmlint")
    done = subprocess.run(
        [
            *(rpmlint, "--config", TREE / "packaging/rpm/rpmlint.toml", built.rpm),
            TREE / "packaging/rpm/recodex-monitor.spec",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "0 errors, 0 warnings" in done.stdout, done.stdout + done.stderr


def deb_files(built: Built) -> set[str]:
    """Return the paths of the Debian package's files."""
    listed = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", built.deb], capture_output=True, check=True, timeout=60
    )
    names = subprocess.run(
        ["tar", "--list"], input=listed.stdout, capture_output=True, check=True, timeout=60
    )
    return {line.lstrip(".") for line in names.stdout.decode().splitlines() if line[-1] != "/"}


def rpm_files(built: Built) -> set[str]:
    """Return the paths of the RPM package's files."""
    listed = subprocess.run(
        ["rpm", "--query", "--queryformat", "[%{FILEMODES:perms} %{FILENAMES}\n]", "-p", built.rpm],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    files = (line.split(" ", 1) for line in listed.stdout.splitlines())
    return {name for mode, name in files if not mode.startswith("d")}


@pytest.mark.parametrize("files", [deb_files, rpm_files])
def test_the_package_has_all_of_the_daemon_and_nothing_else(
    built: Built, files: Callable[[Built], set[str]]
) -> None:
    found = files(built)
    share = "/usr/share/recodex-monitor/"
    code = {name.removeprefix(share) for name in found if name.startswith(f"{share}monitor/")}
    tracked = {
        str(file.relative_to(built.tree))
        for file in (built.tree / "monitor").rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    assert code == tracked
    assert f"{share}kafka/__init__.py" in found
    examples = "/usr/share/doc/recodex-monitor/examples/"
    packaging = built.tree / "packaging"
    assert {name.removeprefix(examples) for name in found if name.startswith(examples)} == {
        str(file.relative_to(packaging))
        for folder in (*("container", "grafana", "helm", "kubernetes", "openshift", "prometheus"),)
        for file in (packaging / folder).rglob("*")
        if file.is_file()
    }
    for stray in ("/tests/", "/benchmarks/", "/site-packages/", "/dist-packages/", "__pycache__"):
        assert [name for name in found if stray in name] == []


def test_both_packages_install_the_same_files(built: Built) -> None:
    def installed(files: set[str]) -> set[str]:
        return {
            # Fedora's zsh looks elsewhere than Debian's.
            name.replace("/zsh/site-functions/", "/zsh/vendor-completions/")
            for name in files
            if not name.startswith(("/usr/share/doc/", "/usr/share/licenses/"))
            # Debian compiles the code again when Python changes.
            and not name.startswith("/usr/share/python3/runtime.d/")
            and not name.startswith("/usr/share/lintian/")
        }

    assert installed(rpm_files(built)) == installed(deb_files(built))


def test_the_rpm_for_rhel_9_reloads_as_its_systemd_can(built: Built, tmp_path: Path) -> None:
    tree = copy_of_tree(tmp_path / "tree")
    make_rhel = ["packaging/build-rpm", "--define", "rhel 9", "--define", "dist .el9"]
    environment = {**os.environ, **FAST, "SOURCE_DATE_EPOCH": EPOCH}
    subprocess.run(make_rhel, cwd=tree, env=environment, check=True, timeout=120)
    package = tree / "dist" / f"recodex-monitor-{built.version}-1.el9.noarch.rpm"
    requires = subprocess.run(
        ["rpm", "--query", "--requires", "--package", package],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert "python3.12dist(pyzmq) >= 26.4" in requires
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    archive = subprocess.run(["rpm2archive", "-"], input=package.read_bytes(), capture_output=True)
    subprocess.run(["tar", "-xz"], cwd=unpacked, input=archive.stdout, check=True, timeout=60)
    unit = (unpacked / "usr/lib/systemd/system/recodex-monitor.service").read_text()
    assert "Type=notify\nExecReload=/bin/kill -HUP $MAINPID\n" in unit
    assert "ImportCredential" not in unit
    launcher = (unpacked / "usr/bin/recodex-monitor").read_text()
    assert launcher.startswith("#!/usr/bin/python3.12 -IB\n")


def test_the_links_of_the_installed_pages_lead_to_files(built: Built, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", built.deb, tmp_path], check=True, timeout=60)
    pages = tmp_path / "usr/share/doc/recodex-monitor"
    found = sorted(pages.rglob("*.md"))
    assert pages / "README.md" in found
    broken = [
        f"{page.relative_to(pages)}: {link}"
        for page in found
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text())
        if ":" not in link and not (page.parent / link).exists()
    ]
    assert broken == []


def test_the_package_lists_the_libraries_that_it_bundles(built: Built, tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "--extract", built.deb, tmp_path], check=True, timeout=60)
    bundled = json.loads((tmp_path / "usr/share/doc/recodex-monitor/sbom.cdx.json").read_text())
    assert bundled["bomFormat"] == "CycloneDX"
    names = {each["name"] for each in bundled["components"]}
    assert names == {"kafka-python", "pywhatwgurl"}
    assert all(each["version"] and each["licenses"] for each in bundled["components"])
