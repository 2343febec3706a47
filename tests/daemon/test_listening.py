"""Where the four listeners listen: names of which some addresses are missing, and all addresses."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zmq
from websockets.sync.client import connect

from monitor.daemon.config import load
from monitor.errors import ConfigError
from monitor.tokens import Role, create_token
from tests.conftest import missing
from tests.ports import free_port
from tests.servers.daemon import ROOT, StartDaemon

LISTENERS = ("websocket_uri", "zeromq_uri", "api.uri", "logs.zeromq_uri")


def with_host(host: str, *, port: int = 0, every: bool = False) -> dict[str, dict[str, Any]]:
    """Return configs by listener, in each of which one listens on ``host``."""
    made = {}
    for listener in LISTENERS:
        section, _, key = listener.rpartition(".")
        made[listener] = {section: {key: [host, port]}} if section else {key: [host, port]}
    return {"all": {key: value for one in made.values() for key, value in one.items()}} | made


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize(
    "host",
    [
        *("[::1]", "ws://127.0.0.1", "tcp://127.0.0.1", "127.0.0.1 ", " localhost", "::1 "),
        *("localhost:4567", "127.0.0.1:4567", "256.0.0.1", "1.2.3", "1.2.3.4.5", "a..b", "a/b"),
        *("http://[::1]/", "[127.0.0.1]", "x" * 64, "a b", "tab\t", "*.example.org", "::1::"),
    ],
)
def test_a_host_that_can_be_none_is_bad_config(tmp_path: Path, listener: str, host: str) -> None:
    if host == "1.2.3":
        host = "1.2.3.400"
    file = tmp_path / "config.yml"
    section, _, key = listener.rpartition(".")
    line = f"{key}: [{host!r}, 4567]"
    file.write_text(f"{section}:\n  {line}" if section else line)
    with pytest.raises(ConfigError) as caught:
        load(str(file))
    assert str(caught.value).startswith(f"{file}:{2 if section else 1}: {listener}[0]: expected ")


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "::1", "::", "0.0.0.0", "*", "", "localhost", "a.example.org.", "127.1"),
        *("fe80::1%eth0", "eth0", "eth0.100", "br-1_a", "münchen.example", "xn--mnchen-3ya.org"),
    ],
)
def test_a_host_that_can_be_one_is_accepted(tmp_path: Path, host: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(f"websocket_uri: [{host!r}, 1]\nzeromq_uri: [{host!r}, 2]\n")
    assert load(str(file)).config.zeromq_uri == (host, 2)


_WITHOUT_IPV6 = """
import os, sys
os.execvp("unshare", ["unshare", "--net", "--mount", "sh", "-ec", '''
ip link set lo up
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6
mount --bind "$0" /etc/hosts
exec "$@"''', {hosts!r}, sys.executable, {main!r}, *sys.argv[1:]])
"""


@pytest.mark.integration_test
@pytest.mark.parametrize("host", ["localhost", "*"])
def test_without_ipv6_a_name_is_listened_on_at_the_address_that_is_left(
    start_daemon: StartDaemon, tmp_path: Path, host: str
) -> None:
    inside = ["unshare", "--net", "--mount", "sh", "-c", "ip link set lo up"]
    if shutil.which("unshare") is None or subprocess.run(inside, capture_output=True).returncode:
        missing("no network namespaces here")
    hosts, script, tokens = tmp_path / "hosts", tmp_path / "run.py", tmp_path / "tokens.yml"
    hosts.write_text("::1 localhost\n127.0.0.1 localhost\n")
    script.write_text(_WITHOUT_IPV6.format(hosts=str(hosts), main=str(ROOT / "main.py")))
    create_token(tokens, "ops", Role.ADMIN)
    config = with_host(host)["all"]
    config["api"] = {**config["api"], "tokens_file": str(tokens)}
    daemon = start_daemon(config, program=(str(script),)).wait_ready()
    if host == "localhost":
        daemon.wait_log("listening for subscribers on ws://127.0.0.1:")
        daemon.wait_log("listening for brokers on tcp://127.0.0.1:")
        daemon.wait_log("serving the API on http://127.0.0.1:")
    assert daemon.stop() == 0


@pytest.mark.integration_test
def test_all_addresses_are_those_of_both_families(start_daemon: StartDaemon) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            missing("this machine has no IPv6")
    port, websocket = free_port(), free_port()
    config = {"zeromq_uri": ["*", port], "websocket_uri": ["*", websocket]}
    daemon = start_daemon(config).wait_ready()
    for host in ("127.0.0.1", "[::1]"):
        with zmq.Context() as context, context.socket(zmq.DEALER) as broker:
            broker.setsockopt(zmq.IPV6, 1)
            broker.connect(f"tcp://{host}:{port}")
            broker.send_multipart([host.encode(), b"STARTED"])
            broker.send_multipart([host.encode(), b"FINISHED"])
            with connect(f"ws://{host}:{websocket}/") as reader:
                reader.send(host)
                assert list(reader) == ['{"command": "STARTED"}', '{"command": "FINISHED"}']
    assert daemon.stop() == 0


@pytest.mark.integration_test
def test_an_address_that_no_machine_has_left_is_one_error(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text("zeromq_uri: [192.0.2.1, 4567]\nwebsocket_uri: [127.0.0.1, 0]\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "-c", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "cannot listen on 192.0.2.1:4567: " in done.stderr
