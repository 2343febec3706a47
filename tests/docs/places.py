"""Where a page's commands run: a checkout in a network of its own, or a booted Debian 13."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from tests.conftest import missing
from tests.distro.built import copy_of_tree
from tests.servers.debian import Machine

__all__ = ["CheckoutPlace", "DebianPlace", "Place", "checkout", "has_socket", "listener", "stop"]

_ROOT = Path(__file__).resolve().parents[2]
# Ctrl-C is for the command alone: what runs it stays to say how that ended.
_AROUND = ("env", "--ignore-signal=INT")
_INSIDE = ("env", "--default-signal=INT")
# What a shell of the page gives to the next one: its directory and what it exported.
_SCRIPT = """
[ ! -e "$STORY/env" ] || . "$STORY/env"
cd "$(cat "$STORY/cwd")"
set -o pipefail
{command}
status=$?
export -p >"$STORY/env"; pwd >"$STORY/cwd"
exit $status
"""


class Place(Protocol):
    """Runs commands and holds files; paths are those that the page's reader sees."""

    def start(self, command: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a command in a shell that begins where the page's last one ended."""

    def path(self, path: str) -> Path:
        """Return where the test finds a file; a relative one is where the page's shell is."""

    @property
    def notify_socket(self) -> Path:
        """Where daemons that commands start say that they are ready."""


def stop(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGINT) -> int:
    """End a command and all that it started, as Ctrl-C does; return its exit status."""
    # Again where it came too early for what was only about to start.
    for _ in range(3):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(7)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(15)
    raise AssertionError("Ctrl-C did not end it")


def has_socket(pid: int) -> bool:
    """Return whether a process, or one that it started, has a socket."""
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if str(descriptor.readlink()).startswith("socket:"):
                    return True
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return any(has_socket(int(child)) for child in children)
    return False


def listener(place: Place) -> socket.socket:
    """Return a socket that hears what daemons notify."""
    place.notify_socket.unlink(missing_ok=True)
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(place.notify_socket))
    place.notify_socket.chmod(0o777)
    heard.settimeout(30)
    return heard


class CheckoutPlace:
    """A checkout with its virtual environment; ports on loopback are nobody else's."""

    def __init__(self, tree: Path, home: Path, network: int) -> None:
        self.tree = tree
        self._home = home
        self._network = network
        (home / "cwd").write_text(f"{tree}\n")

    def start(self, command: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a command, first in the checkout's directory."""
        return subprocess.Popen(
            [
                *(*_AROUND, "nsenter", "-t", str(self._network), "-n", *_INSIDE, "bash", "-c"),
                _SCRIPT.replace("{command}", command),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self._home),
                "STORY": str(self._home),
                "LANG": "C.UTF-8",
                "TERM": "dumb",
                "NOTIFY_SOCKET": str(self.notify_socket),
            },
        )

    def path(self, path: str) -> Path:
        """Return a file, first below the checkout."""
        return Path((self._home / "cwd").read_text().strip()) / path

    @property
    def notify_socket(self) -> Path:
        """Where ``make run`` says that the daemon is ready."""
        return self._home / "notify"


@contextmanager
def checkout(directory: Path) -> Iterator[CheckoutPlace]:
    """Give a copy of this checkout, installed, as ``make install`` leaves it."""
    if os.geteuid() != 0:
        missing("a network of the test's own needs root")
    tree = copy_of_tree(directory / "recodex-monitor")
    (tree / ".venv").mkdir()
    for item in Path(sys.prefix).iterdir():
        if item.name != ".dev":
            (tree / ".venv" / item.name).symlink_to(item)
    (tree / ".venv" / ".dev").touch()
    home = directory / "home"
    home.mkdir()
    holder = subprocess.Popen(
        ["unshare", "--net", "bash", "-c", "ip link set lo up && echo held && read -r the_end"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        yield CheckoutPlace(tree, home, holder.pid)
    finally:
        holder.communicate(b"\n", timeout=10)


class DebianPlace:
    """A booted Debian 13 with the package installed; commands run as root."""

    def __init__(self, debian: Machine) -> None:
        self.debian = debian

    def start(self, command: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a command as root, first in its home."""
        return subprocess.Popen(
            [
                *_AROUND,
                *self.debian.command(
                    *(*_INSIDE, "HOME=/root", "STORY=/srv/story", "TERM=dumb"),
                    *("NOTIFY_SOCKET=/srv/story/notify", "bash", "-c"),
                    _SCRIPT.replace("{command}", command),
                ),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "LANG": "C.UTF-8",
                "DEBIAN_FRONTEND": "noninteractive",
                "SYSTEMD_COLORS": "0",
                "SYSTEMD_PAGER": "cat",
            },
        )

    def path(self, path: str) -> Path:
        """Return a file of the machine."""
        if not path.startswith("/"):
            path = self.path("/srv/story/cwd").read_text().strip() + "/" + path
        return self.debian.path(path)

    @property
    def notify_socket(self) -> Path:
        """Where a daemon that is started by hand says that it is ready."""
        return self.path("/srv/story/notify")
