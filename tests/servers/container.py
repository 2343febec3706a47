"""Images built by buildah, and containers of them as Kubernetes would run them.

No registry is asked: the image that others are built from is the Debian of
:mod:`tests.servers.debian_base` without systemd, kept in the cache. A container runs in a network
of its own, which the test reaches at :attr:`Container.address`, with the image's user, command
and directory, a read-only root, no capabilities, and volumes where the test puts them.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests

from tests.conftest import missing
from tests.servers.debian import base, free_number
from tests.waiting import wait_for

__all__ = ["Container", "Image", "built_image", "running", "wait_until_it_serves"]

_BASE = "localhost/debian:13"
_ENVIRONMENT = {**os.environ, "LC_ALL": "C.UTF-8"}
# What an official image of Debian has, as a tar file: no systemd, which is nobody's init there.
_STRIP = """
set -e
mount -t tmpfs tmpfs "$SCRATCH"
mkdir "$SCRATCH/upper" "$SCRATCH/work" "$SCRATCH/root"
mount -t overlay overlay "$SCRATCH/root" \
    -o "lowerdir=$BASE,upperdir=$SCRATCH/upper,workdir=$SCRATCH/work"
cp /etc/resolv.conf "$SCRATCH/root/etc/resolv.conf"
export DEBIAN_FRONTEND=noninteractive
in_root() { chroot "$SCRATCH/root" "$@"; }
in_root apt-get -qq -y purge --allow-remove-essential systemd systemd-sysv dbus
in_root apt-get -qq -y autoremove --purge
in_root apt-get -qq update
in_root apt-get -qq -y --download-only --no-install-recommends install systemd-standalone-sysusers
rm "$SCRATCH/root/etc/resolv.conf"
tar -C "$SCRATCH/root" -cf "$TARGET" .
"""


class Image:
    """An image in the cache's storage."""

    def __init__(self, buildah: Sequence[str], name: str) -> None:
        self._buildah = buildah
        self.name = name
        found = json.loads(self.call("inspect", "--type", "image", name))
        self.config: dict[str, Any] = found["OCIv1"]["config"]

    def call(self, command: str, *arguments: str) -> str:
        """Run a command of buildah and return what it prints."""
        return _call(*self._buildah, command, *arguments)

    @contextmanager
    def files(self) -> Iterator[Path]:
        """Give the directory that a container's root is."""
        container = self.call("from", self.name).strip()
        try:
            yield Path(self.call("mount", container).strip())
        finally:
            self.call("rm", container)


class Container:
    """A container that runs; :attr:`said` is its standard output and error."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
        self.process = process
        self.address = address
        self._log = log

    @property
    def said(self) -> str:
        """What it has written to its standard output and error."""
        return self._log.read_text(errors="replace")

    def stop(self, limit_s: float) -> int:
        """Send the image's signal to stop, and return the exit status."""
        self.process.terminate()
        return self.process.wait(limit_s)


@contextmanager
def built_image(context: Path, containerfile: Path) -> Iterator[Image]:
    """Build an image and forget it at the end; skip the test where that can't be done."""
    if shutil.which("buildah") is None:
        missing("buildah is not installed (Debian package buildah)")
    buildah = _with_base(base())
    name = f"localhost/recodex-monitor-{os.getpid()}:test"
    _call(
        *buildah, "build", "--isolation", "chroot", "--network", "host", "--quiet",
        *("--build-arg", f"BASE={_BASE}", "--tag", name, "--file", str(containerfile)),
        str(context),
    )  # fmt: skip
    image = Image(buildah, name)
    try:
        yield image
    finally:
        image.call("rmi", "--force", name)


@contextmanager
def running(
    image: Image,
    *arguments: str,
    volumes: Mapping[str, tuple[Path, bool]],
    environ: Mapping[str, str],
    directory: Path,
    user: int | None = None,
) -> Iterator[Container]:
    """Run a container: ``volumes`` are host directories by where they go, and if read-only.

    With a ``user`` it runs as that number in the group 0, as OpenShift has it, with a line in
    /etc/passwd, as OpenShift's runtime writes one.
    """
    with ExitStack() as stack:
        root = stack.enter_context(image.files())
        number = stack.enter_context(free_number())
        name, address = f"rmc{number}", f"169.254.{number}.2"
        stack.callback(_call, "ip", "netns", "delete", name)
        _call("ip", "netns", "add", name)
        inside = ("ip", "-n", name)
        _call("ip", "link", "add", f"vc-{name}", "type", "veth", "peer", "pod", "netns", name)
        _call("ip", "address", "add", f"169.254.{number}.1/30", "dev", f"vc-{name}")
        _call("ip", "link", "set", f"vc-{name}", "up")
        _call(*inside, "address", "add", f"{address}/30", "dev", "pod")
        _call(*inside, "link", "set", "pod", "up")
        _call(*inside, "link", "set", "lo", "up")
        passwd = root / "etc/passwd"
        if user is not None:
            with passwd.open("a") as stream:
                stream.write(f"assigned:x:{user}:0::/:/usr/sbin/nologin\n")
        uid = image.config["User"].partition(":")[0] if user is None else str(user)
        lines = [line.split(":") for line in passwd.read_text().splitlines()]
        (login,) = [line[0] for line in lines if line[2] == uid]
        binds = [
            f"--bind{'-ro' if read_only else ''}={source}:{target}"
            for target, (source, read_only) in volumes.items()
        ]
        log = directory / "said"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *("setpriv", "--pdeathsig", "TERM", "systemd-nspawn", "--quiet"),
                    *(f"--directory={root}", f"--machine={name}", "--read-only"),
                    *("--register=no", "--keep-unit", "--resolv-conf=off", "--timezone=off"),
                    *("--link-journal=no", "--console=pipe", f"--user={login}"),
                    *("--drop-capability=all", "--no-new-privileges=yes"),
                    f"--network-namespace-path=/run/netns/{name}",
                    f"--kill-signal={image.config['StopSignal']}",
                    f"--chdir={image.config['WorkingDir']}",
                    *(f"--setenv={key}={value}" for key, value in environ.items()),
                    *binds,
                    *image.config["Entrypoint"],
                    *(arguments or image.config["Cmd"]),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**_ENVIRONMENT, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        try:
            yield Container(process, address, log)
        finally:
            process.terminate()
            try:
                process.wait(30)
            finally:
                process.kill()
                process.wait(10)


def _with_base(system: Path) -> list[str]:
    """Return how to call buildah on a storage that has Debian's image, made now if need be."""
    place = system.with_name(f"{system.name}-images")
    place.mkdir(exist_ok=True)
    storage = ("--root", str(place / "storage"), "--runroot", str(place / "run"))
    buildah = ["buildah", *storage, "--storage-driver", "overlay"]
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _BASE.rpartition(":")[0] not in _call(*buildah, "images", "--format", "{{.Name}}"):
            with tempfile.TemporaryDirectory(prefix="rm-image-", dir=place) as scratch:
                (Path(scratch) / "scratch").mkdir()
                tar = Path(scratch) / "base.tar"
                environment = {
                    "BASE": str(system), "SCRATCH": f"{scratch}/scratch", "TARGET": str(tar),
                }  # fmt: skip
                _call("unshare", "--mount", "bash", "-c", _STRIP, **environment)
                container = _call(*buildah, "from", "scratch").strip()
                _call(*buildah, "add", "--quiet", container, str(tar), "/")
                _call(*buildah, "commit", "--quiet", "--rm", container, _BASE)
    return buildah


def _call(*command: str, **environ: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env={**_ENVIRONMENT, **environ}, timeout=600
    )
    said = (done.stdout + done.stderr)[-3000:]
    assert done.returncode == 0, f"{' '.join(command)}: exit status {done.returncode}: {said}"
    return done.stdout


def wait_until_it_serves(container: Container, path: str) -> None:
    """Wait for an answer 200 over HTTP, as the kubelet does, from another address."""

    def serves() -> bool:
        assert container.process.poll() is None, container.said
        try:
            url = f"http://{container.address}:9000{path}"
            return requests.get(url, timeout=5).status_code == 200
        except requests.RequestException:
            return False

    wait_for(serves, f"{path}: {container.said}", limit_s=60)
