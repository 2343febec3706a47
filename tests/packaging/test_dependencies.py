"""What the packages depend on is what the code imports, in the versions of requirements.txt."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import monitor
from monitor.errors import MissingPackageError
from monitor.libraries import LIBRARIES, needed_by

TREE = Path(__file__).resolve().parents[2]
CONTROL = (TREE / "packaging/deb/control").read_text()
SPEC = (TREE / "packaging/rpm/recodex-monitor.spec").read_text()
# What a daemon with the defaults imports: the relay and what is below all parts.
RELAY_ONLY = ("yaml", "msgspec", "sdnotify", "websockets", "zmq")


def control_field(name: str) -> dict[str, str]:
    """Return package -> lowest version ('' for any) of one field of the Debian package."""
    stanza = CONTROL.split("\nPackage:")[1]
    (text,) = re.findall(rf"^{name}:(.*\n(?:[ \t].*\n)*)", stanza, re.M)
    found = {}
    for item in text.split(","):
        matched = re.fullmatch(r"\s*([\w-]+)(?: \(>= ([\w.]+)\))?\s*", item)
        if matched:
            found[matched[1]] = matched[2] or ""
    return found


def spec_field(name: str) -> dict[str, str]:
    """Return PyPI's name -> lowest version of one kind of dependency of the rpm."""
    lines = re.findall(rf"^{name}: +%{{dist_of ([\w-]+)}}(?: >= ([\w.]+))?$", SPEC, re.M)
    return dict(lines)


def requirements() -> dict[str, str]:
    """Return PyPI's name -> lowest version that the daemon takes."""
    found = {}
    files = (TREE / name for name in ("requirements.txt", "requirements-cluster.txt"))
    for line in "".join(file.read_text() for file in files).splitlines():
        matched = re.fullmatch(r"([\w-]+)>=([\w.]+)(?:,.*)?", line)
        if matched:
            found[matched[1].replace("psycopg2-binary", "psycopg2")] = matched[2]
    return found


def imported() -> set[str]:
    """Return every library that any module of the daemon imports."""
    found: set[str] = set()
    for file in (TREE / "monitor").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"monitor"}


def test_every_library_that_is_imported_has_a_known_package() -> None:
    # These come with fastapi and uvicorn; nothing else may come by chance.
    assert imported() - {"pydantic", "starlette", "anyio", "h11"} <= set(LIBRARIES)


def test_requirements_and_the_known_packages_are_the_same() -> None:
    assert set(requirements()) == {pypi for _, pypi in LIBRARIES.values()}


@pytest.mark.parametrize("module", LIBRARIES)
def test_debian_depends_on_the_relays_libraries_and_recommends_the_others(module: str) -> None:
    debian, _ = LIBRARIES[module]
    depends, recommends = control_field("Depends"), control_field("Recommends")
    if not debian:
        assert not [name for name in {**depends, **recommends} if module in name]
    elif module in RELAY_ONLY:
        assert debian in depends
    else:
        assert debian in recommends
        assert debian not in depends


@pytest.mark.parametrize("module", [name for name in LIBRARIES if LIBRARIES[name][0]])
def test_the_rpm_requires_the_same_as_the_deb(module: str) -> None:
    _, pypi = LIBRARIES[module]
    wanted = "Requires" if module in RELAY_ONLY else "Recommends"
    other = "Recommends" if module in RELAY_ONLY else "Requires"
    assert pypi in spec_field(wanted)
    assert pypi not in spec_field(other)


def test_the_packages_ask_for_no_older_versions_than_the_daemon_takes() -> None:
    wanted = requirements()
    both = {**control_field("Depends"), **control_field("Recommends")}
    debian = {pypi: both[name] for name, pypi in LIBRARIES.values() if name}
    fedora = {**spec_field("Requires"), **spec_field("Recommends")}
    for versions in (debian, fedora):
        for name, version in versions.items():
            # A package without a version is one whose every packaged version will do.
            if version:
                assert (wanted[name] + ".").startswith(version + "."), name


@pytest.mark.parametrize("library", ["kafka-python", "pywhatwgurl"])
def test_a_carried_library_is_one_that_the_daemon_takes(library: str) -> None:
    (carried,) = re.findall(
        rf"^{library}==([\d.]+) --hash=sha256:[0-9a-f]{{64}}$",
        (TREE / "packaging/carried.txt").read_text(),
        re.M,
    )
    lowest = requirements()[library]
    assert tuple(map(int, carried.split("."))) >= tuple(map(int, lowest.split(".")))
    assert f"%global {library.replace('-', '_')} {carried}\n" in SPEC


def test_the_spec_has_the_version_of_the_code() -> None:
    assert re.findall(r"^Version: +(\S+)$", SPEC, re.M) == [monitor.__version__]


def test_a_missing_library_is_said_with_the_package_that_has_it() -> None:
    with pytest.raises(MissingPackageError) as raised, needed_by("probes"):
        raise ModuleNotFoundError("No module named 'pycurl'", name="pycurl")
    assert str(raised.value) == (
        "probes needs the Python module pycurl;"
        " install python3-pycurl (Debian) or python3dist(pycurl) (Fedora, RHEL)"
    )


def test_a_missing_module_of_our_own_stays_a_defect() -> None:
    with pytest.raises(ModuleNotFoundError), needed_by("probes"):
        raise ModuleNotFoundError("No module named 'monitor.nothing'", name="monitor.nothing")
