"""The servers that the relay is compared with: how each is started, and whether it can be."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process import Server, raise_descriptors, running

__all__ = ["CENTRIFUGO", "DAEMON", "FLOOR", "NCHAN", "PLAIN", "SIDES", "Ports", "Side", "config_of"]

HERE = Path(__file__).parent

NGINX_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
NGINX = """\
load_module {module};
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
worker_rlimit_nofile {descriptors};
events {{ worker_connections {descriptors}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    nchan_shared_memory_size 512m;
    server {{
        nchan_message_buffer_length 100000;
        nchan_message_timeout 1h;
        nchan_subscriber_first_message oldest;
        listen 127.0.0.1:{websocket} backlog=4096;
        listen 127.0.0.1:{publish};
        location ~ ^/pub/(.+)$ {{ nchan_publisher; nchan_channel_id $1; }}
        location ~ ^/sub/(.+)$ {{ nchan_subscriber websocket; nchan_channel_id $1; }}
    }}
}}
"""

CENTRIFUGO_CONFIG = {
    "client": {"insecure": True, "ping_interval": "1h"},
    "http_api": {"insecure": True},
    "channel": {
        "without_namespace": {
            "allow_subscribe_for_client": True,
            "allow_subscribe_for_anonymous": True,
            "history_size": 100_000,
            "history_ttl": "1h",
        }
    },
    "usage_stats": {"disabled": True},
    "log": {"level": "warn"},
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a server listens: for subscribers, and for what is published."""

    websocket: int
    publish: int


def config_of(directory: Path, ports: Ports, *, keep_finished: int = 300) -> Path:
    """Write a config file of the daemon, relay only; the plain form reads the same one."""
    path = directory / "config.yml"
    path.write_text(
        f'websocket_uri: ["127.0.0.1", {ports.websocket}]\n'
        f'zeromq_uri: ["127.0.0.1", {ports.publish}]\n'
        f"logger: {{file: {directory}/monitor.log, level: info}}\n"
        f"relay: {{max_clients: 12000, keep_finished: {keep_finished}}}\n",
        encoding="utf-8",
    )
    return path


@contextmanager
def daemon(directory: Path, ports: Ports) -> Iterator[Server]:
    """Run the daemon."""
    command = [sys.executable, str(HERE.parent / "main.py"), "-c", str(config_of(directory, ports))]
    with running(
        command, directory=directory, environment={"STATE_DIRECTORY": str(directory)}
    ) as server:
        yield server


@contextmanager
def baseline(directory: Path, ports: Ports, *options: str) -> Iterator[Server]:
    """Run the plain form."""
    program = str(HERE / "baseline_relay.py")
    command = [sys.executable, program, "-c", str(config_of(directory, ports)), *options]
    with running(command, directory=directory) as server:
        yield server


@contextmanager
def baseline_uvloop(directory: Path, ports: Ports) -> Iterator[Server]:
    """Run the plain form on uvloop."""
    with baseline(directory, ports, "--uvloop") as server:
        yield server


@contextmanager
def nchan(directory: Path, ports: Ports) -> Iterator[Server]:
    """Run nginx in one process, with its nchan module."""
    path = directory / "nginx.conf"
    path.write_text(
        NGINX.format(
            module=NGINX_MODULE,
            directory=directory,
            descriptors=raise_descriptors(),
            websocket=ports.websocket,
            publish=ports.publish,
        ),
        encoding="utf-8",
    )
    command = ["/usr/sbin/nginx", "-c", str(path), "-p", str(directory)]
    with running(command, directory=directory, port=ports.publish) as server:
        yield server


def without_nchan() -> str:
    """Return what nchan lacks here."""
    if NGINX_MODULE.exists() and shutil.which("nginx"):
        return ""
    return "Debian's nginx-light and libnginx-mod-nchan are not installed"


def _centrifugo_program() -> Path:
    done = subprocess.run(
        [HERE / "build-centrifugo"], stdout=subprocess.PIPE, check=True, text=True
    )
    return Path(done.stdout.strip())


@contextmanager
def centrifugo(directory: Path, ports: Ports) -> Iterator[Server]:
    """Run Centrifugo, its engine in memory, with histories that hold everything."""
    path = directory / "centrifugo.json"
    path.write_text(
        json.dumps(CENTRIFUGO_CONFIG | {"http_server": _http_server(ports)}), encoding="utf-8"
    )
    command = [str(_centrifugo_program()), "-c", str(path)]
    with running(command, directory=directory, port=ports.publish) as server:
        yield server


def _http_server(ports: Ports) -> dict[str, str | int]:
    return {
        "address": "127.0.0.1",
        "port": ports.websocket,
        "internal_address": "127.0.0.1",
        "internal_port": str(ports.publish),
    }


def without_centrifugo() -> str:
    """Return what Centrifugo lacks here; builds it where it was never built."""
    try:
        _centrifugo_program()
    except subprocess.CalledProcessError:
        return "it cannot be built"
    return ""


def _build_floor(program: Path) -> str:
    """Build the floor; return what the compiler says where it cannot."""
    if not shutil.which("gcc"):
        return "gcc is not installed"
    source = str(HERE / "relay_floor.c")
    command = ["gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", source, "-o", str(program), "-lzmq"]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False, text=True)
    if not done.returncode:
        return ""
    return next((line for line in done.stderr.splitlines() if "error" in line), done.stderr)


@contextmanager
def floor(directory: Path, ports: Ports) -> Iterator[Server]:
    """Run the floor, built for this."""
    program = directory / "relay_floor"
    if complaint := _build_floor(program):
        raise SystemExit(f"the floor cannot be built: {complaint}")
    command = [str(program), str(ports.websocket), str(ports.publish)]
    with running(command, directory=directory, port=ports.publish) as server:
        yield server


def without_floor() -> str:
    """Return why the floor cannot be built here."""
    complaint = _build_floor(Path("/dev/null"))
    return complaint and f"it needs gcc and Debian's libzmq3-dev: {complaint}"


@dataclass(frozen=True, slots=True)
class Side:
    """A server: how to run it, how a load talks to it, what it lacks here and cannot show."""

    run: Callable[[Path, Ports], AbstractContextManager[Server]]
    dialect: str = "relay"
    lacks: Callable[[], str] = lambda: ""
    no: frozenset[str] = frozenset()  # loads that it does not get


DAEMON, PLAIN, NCHAN, CENTRIFUGO, FLOOR = "recodex-monitor", "plain", "nchan", "centrifugo", "floor"
# Some tell nobody when they are ready; Centrifugo answers with a history instead of sending it.
SIDES: Mapping[str, Side] = {
    DAEMON: Side(daemon),
    PLAIN: Side(baseline),
    "plain-uvloop": Side(baseline_uvloop),
    NCHAN: Side(nchan, "nchan", without_nchan, frozenset({"fresh"})),
    CENTRIFUGO: Side(centrifugo, "centrifugo", without_centrifugo, frozenset({"fresh", "replay"})),
    FLOOR: Side(floor, "relay", without_floor, frozenset({"fresh"})),
}
