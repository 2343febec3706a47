"""The packages under test: built from a copy of this tree, and served as repositories."""

from __future__ import annotations

import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
# In place of the commit's date: the copy is not a git checkout.
EPOCH = "1700000000"
# How small the packages are is not what is tested.
FAST = {"DPKG_DEB_COMPRESSOR_LEVEL": "0", "RPM_COMPRESSOR_LEVEL": "1"}


@dataclass(frozen=True, slots=True)
class Built:
    """A tree with both packages and the signed repositories in its dist/."""

    tree: Path
    version: str

    @property
    def deb(self) -> Path:
        """The Debian package."""
        return self.tree / "dist" / f"recodex-monitor_{self.version}_all.deb"

    @property
    def rpm(self) -> Path:
        """The RPM package, unsigned."""
        return self.tree / "dist" / f"recodex-monitor-{self.version}-1.noarch.rpm"

    @property
    def repository(self) -> Path:
        """What `make repo` made to be served."""
        return self.tree / "dist" / "repo"


def make(tree: Path, *targets: str, **environ: str) -> str:
    """Run make in a tree and return what it printed."""
    environment = {**os.environ, **FAST, "SOURCE_DATE_EPOCH": EPOCH, **environ}
    done = subprocess.run(
        ["make", "--silent", *targets],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode != 0:
        pytest.fail(f"make {' '.join(targets)}: {(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def copy_of_tree(target: Path) -> Path:
    """Copy what belongs to the source, as a released archive has it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TREE,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if not (TREE / name).exists():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(TREE / name, target / name)
    return target


def version_of(tree: Path) -> str:
    """Return the version of a tree, by the script that the packages are built with."""
    done = subprocess.run([tree / "packaging" / "version"], capture_output=True, text=True)
    return done.stdout.strip()


def signing_home(directory: Path, address: str) -> Path:
    """Make a GNUPGHOME with one fresh key for ``address``."""
    directory.mkdir(mode=0o700)
    subprocess.run(
        ["gpg", "--batch", "--passphrase", "", "--quick-gen-key", address, "rsa2048", "sign"],
        env={**os.environ, "GNUPGHOME": str(directory)},
        capture_output=True,
        check=True,
        timeout=60,
    )
    return directory


@contextmanager
def served(directory: Path, address: str) -> Iterator[str]:
    """Serve a directory over HTTP on a free port of ``address`` and give its URL."""
    handler = partial(_Quiet, directory=str(directory))
    server = http.server.ThreadingHTTPServer((address, 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{address}:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: pytest's output is for what fails."""
