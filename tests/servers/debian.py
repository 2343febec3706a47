"""A Debian 13 that systemd has booted, for tests of the packages.

The base system is made once by debootstrap and kept in the cache, with every package that
recodex-monitor can depend on already downloaded, so that apt in the machine needs no
network. A machine is an overlay over the base in a mount namespace of its own, booted by
systemd-nspawn in a network of its own: nothing of it outlives its test, however that
ends, and its ports are nobody else's. The test reaches it over a veth pair at
:attr:`Machine.address`, and its files through :meth:`Machine.path`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NoReturn, TypedDict, Unpack

import pytest

from tests.conftest import missing
from tests.servers.cgroups import enter_and_run, make_groups, remove_groups
from tests.servers.debian_base import Base, cache_directory
from tests.waiting import wait_for

__all__ = ["Machine", "base", "free_number", "machine"]

_TOOLS = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "setpriv": "util-linux",
    "ip": "iproute2",
}
_BOOT_LIMIT_S = 60.0
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
    "SYSTEMD_COLORS": "0",
}
# The overlay lives in memory (dpkg writes and syncs thousands of small files) and in a mount
# namespace that ends with the last process in it.
_HOLD = """
set -e
mount -t tmpfs -o mode=755 tmpfs "$SCRATCH"
mkdir "$SCRATCH/upper" "$SCRATCH/work" "$SCRATCH/root"
mount -t overlay overlay "$SCRATCH/root" \
    -o "lowerdir=$BASE,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work"
echo held
read -r the_end
"""
# The test process may die of anything: then the machine ends too. systemd-nspawn gets a
# signal that it can pass on: killed at once it would leave its system running.
_WITH_US = ("setpriv", "--pdeathsig", "TERM")
# systemd-nspawn's own word for "the system asked for a reboot", meant for a service manager.
_REBOOT_STATUS = 133


class _How(TypedDict, total=False):
    """How to run a command; one that fails fails the test, unless ``check`` is false."""

    check: bool
    timeout_s: float
    text_in: str


class Machine:
    """A Debian 13 of its own: first its files alone, after :meth:`boot` a running system."""

    def __init__(self, layer: Path, scratch: Path, number: int) -> None:
        self.name = f"rm{number}"
        self.address = f"169.254.{number}.2"
        self.host_address = f"169.254.{number}.1"
        self._root = scratch / "root"
        self._console = (scratch.parent / "console").open("ab")
        self._init = 0
        self._groups: tuple[Path, ...] = ()
        self._nspawn: subprocess.Popen[bytes] | None = None
        environment = {**_ENVIRONMENT, "BASE": str(layer), "SCRATCH": str(scratch)}
        self._holder = subprocess.Popen(
            [*_WITH_US, "unshare", "--mount", "bash", "-c", _HOLD],
            stdin=subprocess.PIPE,
            stdout=self._console,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        wait_for(lambda: "held\n" in self._said(), "the machine's file system")

    def boot(self) -> None:
        """Start the system and wait until its systemd has nothing left to start."""
        self._groups = make_groups(self.name)
        nspawn = (
            *(*_WITH_US, "nsenter", "-t", str(self._holder.pid), "-m"),
            *("systemd-nspawn", "--quiet", "--boot"),
            *(f"--directory={self._root}", f"--machine={self.name}", "--network-veth"),
            *("--register=no", "--keep-unit", "--resolv-conf=off", "--console=pipe"),
            "--kill-signal=SIGRTMIN+3",
        )
        self._nspawn = subprocess.Popen(
            enter_and_run(self._groups, *nspawn),
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**_ENVIRONMENT, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
        )
        wait_for(self._find_init, "the machine's first process", limit_s=_BOOT_LIMIT_S)
        wait_for(self._is_up, "the machine's boot", limit_s=_BOOT_LIMIT_S)
        self._connect()

    def reboot(self) -> None:
        """Restart the system from within, as an operator would."""
        assert self._nspawn is not None
        self.run("systemctl", "reboot", check=False)
        status = self._nspawn.wait(timeout=_BOOT_LIMIT_S)
        assert status == _REBOOT_STATUS, f"ended with {status}: {self._said()[-2000:]}"
        self.boot()

    def discard(self) -> None:
        """Stop the machine, in order where it still listens, and forget its files."""
        if self._nspawn is not None:
            self._nspawn.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._nspawn.wait(timeout=30)
            self._nspawn.kill()
            self._nspawn.wait(timeout=30)
        remove_groups(self._groups)
        self._holder.kill()
        self._holder.communicate(timeout=60)
        self._console.close()

    def run(self, *command: str, **how: Unpack[_How]) -> subprocess.CompletedProcess[str]:
        """Run a command in the running system as root.

        A failed systemctl names its unit at most: the journal's end tells why.
        """
        check = how.get("check", True)
        how["check"] = False
        done = _run(*self.command(*command), **how)
        if check and done.returncode != 0:
            why = ""
            if command[0] == "systemctl":
                journal = self.command("journalctl", "--no-pager", "--lines=60")
                why = _run(*journal, check=False).stdout
            _failed(command, done, why)
        return done

    def command(self, *command: str) -> tuple[str, ...]:
        """Return what runs a command in the running system as root, from outside."""
        return ("nsenter", "-t", str(self._init), "-a", *command)

    def run_in_files(self, *command: str, **how: Unpack[_How]) -> subprocess.CompletedProcess[str]:
        """Run a command in the machine's files by chroot, booted or not, on the host's network."""
        return self.run_beside("chroot", self.root, *command, **how)

    def run_beside(self, *command: str, **how: Unpack[_How]) -> subprocess.CompletedProcess[str]:
        """Run a command of the host, which finds the machine's files at :attr:`root`."""
        return _run("nsenter", "-t", str(self._holder.pid), "-m", *command, **how)

    @property
    def root(self) -> str:
        """Where commands of :meth:`run_beside` find the machine's files."""
        return str(self._root)

    def output(self, *command: str) -> str:
        """Return what a command in the running system prints, without its last newline."""
        return self.run(*command).stdout.rstrip("\n")

    def show(self, unit: str, setting: str) -> str:
        """Return one property of a unit, as systemctl show has it."""
        return self.output("systemctl", "show", "--value", f"--property={setting}", unit)

    def journal(self, unit: str) -> str:
        """Return all messages of a unit in the journal."""
        self.run("journalctl", "--sync")
        return self.output("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")

    def path(self, path: str) -> Path:
        """Return where the test finds a file of the machine."""
        return Path(f"/proc/{self._holder.pid}/root{self._root}") / path.lstrip("/")

    def write(self, path: str, text: str) -> None:
        """Write a file of the machine, keeping its mode and owner where it is there already."""
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).write_text(text)

    def copy_in(self, source: Path, path: str) -> None:
        """Copy a file or a directory of the host into the machine."""
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, self.path(path), symlinks=True)
        else:
            shutil.copy(source, self.path(path))

    def _said(self) -> str:
        return Path(self._console.name).read_text(errors="replace")

    def _find_init(self) -> bool:
        """Look for the system's first process, which systemd-nspawn is the parent of."""
        nspawn = self._nspawn
        assert nspawn is not None
        if nspawn.poll() is not None:
            pytest.fail(f"the machine ended: {self._said()[-2000:]}")
        with suppress(OSError, ValueError):
            text = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children").read_text()
            (child,) = text.split()
            self._init = int(child)
            return Path(f"/proc/{child}/comm").read_text().strip() == "systemd"
        return False

    def _is_up(self) -> bool:
        said = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return said in {"running", "degraded"}

    def _connect(self) -> None:
        inside = ("nsenter", "-t", str(self._init), "-n")
        for where, address, link in (
            ((), self.host_address, f"ve-{self.name}"),
            (inside, self.address, "host0"),
        ):
            _call(*where, "ip", "address", "replace", f"{address}/30", "dev", link)
            _call(*where, "ip", "link", "set", link, "up")


def base(*, full: bool = False) -> Path:
    """Return the base system's files, made now if the cache lacks them.

    A ``full`` one has every package installed that the daemon can use, and pytest. Skips
    the test, or fails it where everything is required, on a machine that can't do this.
    """
    for tool, package in _TOOLS.items():
        if shutil.which(tool) is None:
            missing(f"{tool} is not installed (Debian package {package})")
    if os.geteuid() != 0:
        missing("a booted Debian needs root")
    system = Base()
    return system.full() if full else system.bare()


@contextmanager
def machine(*, full: bool = False, booted: bool = True) -> Iterator[Machine]:
    """Give a Debian 13, ``full`` as :func:`base` says, and take it down at the end."""
    layer = base(full=full)
    with ExitStack() as stack:
        number = stack.enter_context(free_number())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rm-debian-")))
        (scratch / "machine").mkdir()
        debian = Machine(layer, scratch / "machine", number)
        stack.callback(debian.discard)
        if booted:
            debian.boot()
        yield debian


@contextmanager
def free_number() -> Iterator[int]:
    """Hold a number that no other machine on this host has; its name and addresses follow."""
    for number in range(1, 250):
        with (cache_directory() / f"machine-{number}.lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            if Path(f"/sys/class/net/ve-rm{number}").exists():
                continue
            yield number
            return
    pytest.fail("249 machines are running")


def _run(*command: str, **how: Unpack[_How]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        input=how.get("text_in", ""),
        timeout=how.get("timeout_s", 100),
        env=_ENVIRONMENT,
    )
    if how.get("check", True) and done.returncode != 0:
        _failed(command, done)
    return done


def _failed(
    command: tuple[str, ...], done: subprocess.CompletedProcess[str], why: str = ""
) -> NoReturn:
    said = (done.stdout + done.stderr)[-4000:]
    pytest.fail(f"{' '.join(command)}: exit status {done.returncode}\n{said}{why}")


def _call(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)
