"""The Debian 13 that machines are overlays of: made once, kept in the cache.

Two directories: a bare system in whose apt cache lies all that the packages can depend
on, and a full one where all that is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Base", "cache_directory"]

_RELEASE = "trixie"
_BOOTED_BY = ("systemd", "systemd-sysv", "dbus")
# What the daemon's own tests need to run against Debian's versions of the libraries.
_TESTED_BY = (
    "ca-certificates",
    "curl",
    "python3-hypothesis",
    "python3-pytest",
    "python3-pytest-timeout",
    "python3-trustme",
    "rpm",
)
# What the documents have their readers install: fetched here, and installed by the pages.
_FETCHED = ("apache2", "nginx", "postgresql-client", "python3-venv")
_CONTROL = Path(__file__).resolve().parents[2] / "packaging" / "deb" / "control"
_KEEP_S = 7 * 86400.0
_APT = ("apt-get", "-qq", "--yes", "--no-install-recommends")


def cache_directory() -> Path:
    """Return where things that are big to fetch are kept between runs."""
    named = os.environ.get("RECODEX_TEST_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "recodex-monitor"


class Base:
    """The two directories, each made when it is first asked for."""

    def __init__(self) -> None:
        self._packages = (*_dependencies(_CONTROL.read_text()), *_TESTED_BY)
        names = " ".join((_RELEASE, *_BOOTED_BY, *self._packages, *_FETCHED))
        digest = hashlib.sha256(names.encode()).hexdigest()[:12]
        self._bare = cache_directory() / f"debian-{_RELEASE}-{digest}"

    def bare(self) -> Path:
        """Return the system without the daemon's dependencies."""
        return _made(self._bare, self._bootstrap)

    def full(self) -> Path:
        """Return the system with all of them, and pytest."""
        self.bare()
        return _made(self._bare.with_name(f"{self._bare.name}-full"), self._install)

    def _bootstrap(self, root: Path) -> None:
        include = f"--include={','.join(_BOOTED_BY)}"
        _call("debootstrap", "--variant=minbase", include, _RELEASE, str(root))
        # dpkg syncs each file to the disk otherwise; this system is thrown away.
        (root / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
        shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
        _call("chroot", str(root), *_APT, "update")
        # One download for all: apt plans as for a system that installs them together.
        _call("chroot", str(root), *_APT, "--download-only", "install", *self._packages)
        _call("chroot", str(root), *_APT, "--download-only", "install", *_FETCHED)
        (root / "etc/resolv.conf").unlink()

    def _install(self, root: Path) -> None:
        _call("cp", "--archive", "--reflink=auto", f"{self._bare}/.", str(root))
        _call("chroot", str(root), *_APT, "install", *self._packages)


def _dependencies(control: str) -> tuple[str, ...]:
    """Return the names of all Python libraries that the control file depends on or recommends."""
    found: set[str] = set()
    for field in re.findall(
        r"^(?:Depends|Recommends|Suggests):((?:.*\n)(?:[ \t].*\n)*)", control, re.M
    ):
        found.update(re.findall(r"\b(?:python3[-\w]*|apprise)", field))
    return tuple(sorted(found))


def _made(target: Path, make: Callable[[Path], None]) -> Path:
    """Return ``target``, made by ``make`` in a directory that gets its name when it is whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / "debian.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            unfinished = target.with_name(f"{target.name}.unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(target)
        os.utime(target)
        _prune(target.parent)
    return target


def _prune(cache: Path) -> None:
    """Remove what no test has used for long: a change of the dependencies leaves it behind."""
    for kept in cache.glob("debian-*/"):
        if kept.stat().st_mtime < time.time() - _KEEP_S:
            shutil.rmtree(kept)


def _call(*command: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    if done.returncode != 0:
        said = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}: {said}")
