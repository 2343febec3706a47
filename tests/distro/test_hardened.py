"""The unit's hardening: how much it is worth, and that nothing the daemon does suffers."""

from __future__ import annotations

import json
import re
import resource
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
import zmq
import zmq.auth

from tests.bus.recorded import BATCHES, DECODED, decode_command
from tests.distro.built import Built
from tests.distro.names import name_server
from tests.distro.peers import CONFIG, LOG, UNIT, WEBSOCKET_PORT, ZEROMQ_PORT, Installed, send
from tests.servers.debian import machine
from tests.waiting import wait_for

pytestmark = [pytest.mark.distro, pytest.mark.timeout(600)]

NAME = "relay.test"
# Run in the machine: how many results its table holds.
COUNT = (
    "import sqlite3; file = 'file:/var/lib/recodex-monitor/monitor.db?mode=ro';"
    " query = 'SELECT count(*) FROM availability_result';"
    " rows = sqlite3.connect(file, uri=True).execute(query);"
    " print(rows.fetchone()[0])"
)
# Run in the machine: the error of the last ping.
LAST_PING = (
    "import sqlite3; file = 'file:/var/lib/recodex-monitor/monitor.db?mode=ro';"
    " query = 'SELECT error FROM availability_result WHERE job_id = 77 ORDER BY scheduled_at';"
    " rows = sqlite3.connect(file, uri=True).execute(query).fetchall();"
    " print(rows[-1][0] if rows else 'nothing')"
)


@pytest.fixture(scope="module")
def hardened(built: Built) -> Iterator[Installed]:
    """Install the daemon where every library that it can use is there."""
    with machine(full=True) as debian:
        debian.copy_in(built.deb, "/srv/new.deb")
        debian.run("dpkg", "--install", "/srv/new.deb")
        yield Installed(debian)


@pytest.mark.parametrize("unit", [UNIT, "recodex-monitor@consumer.service"])
def test_systemd_finds_little_that_is_exposed(hardened: Installed, unit: str) -> None:
    said = hardened.debian.output("systemd-analyze", "security", "--no-pager", unit)
    (score,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert float(score) <= 1.5


def test_the_daemon_has_the_limits_of_its_unit(hardened: Installed) -> None:
    limits = hardened.debian.output("cat", f"/proc/{hardened.main_pid()}/limits")
    # A container's systemd can't go beyond what its host has given it.
    _, given = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = 65536 if given == resource.RLIM_INFINITY else min(65536, given)
    assert re.search(rf"^Max open files +{files} +{files} ", limits, re.M)
    assert hardened.debian.show(UNIT, "LimitNOFILE") == "65536"
    assert hardened.debian.show(UNIT, "MemoryMax") == str(2 << 30)
    status = hardened.debian.output("cat", f"/proc/{hardened.main_pid()}/status")
    assert re.search(r"^CapEff:\s+0+$", status, re.M)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.M)
    assert re.search(r"^Seccomp:\s+2$", status, re.M)


def test_names_tls_curve_and_secrets_work_under_it(hardened: Installed, tmp_path: Path) -> None:
    debian = hardened.debian
    authority = trustme.CA()
    certificate = authority.issue_cert(NAME)
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    server_public, server_secret = zmq.curve_keypair()
    broker_public, broker_secret = zmq.curve_keypair()
    zmq.auth.create_certificates(tmp_path, "unused")
    # Secrets: readable by root alone, and by the service as credentials.
    debian.write(
        "/etc/credstore/recodex-monitor.tls-key", certificate.private_key_pem.bytes().decode()
    )
    debian.write("/etc/credstore/recodex-monitor.curve-key", server_secret.decode())
    debian.run("bash", "-c", "chmod 0600 /etc/credstore/*")
    debian.write("/etc/recodex/monitor/chain.pem", chain.decode())
    debian.write(
        "/etc/recodex/monitor/brokers/broker.key",
        f'metadata\ncurve\n    public-key = "{broker_public.decode()}"\n',
    )
    debian.write("/etc/resolv.conf", f"nameserver {debian.host_address}\n")
    hardened.configure(
        json.dumps(
            {
                "websocket_uri": [NAME, WEBSOCKET_PORT],
                "zeromq_uri": ["0.0.0.0", ZEROMQ_PORT],
                "logger": {"file": LOG},
                "relay": {
                    "tls": {
                        "certificate": "/etc/recodex/monitor/chain.pem",
                        "key": "${CREDENTIALS_DIRECTORY}/recodex-monitor.tls-key",
                    },
                    "curve": {
                        "secret_key_file": "recodex-monitor.curve-key",
                        "public_keys_dir": "/etc/recodex/monitor/brokers",
                    },
                },
            }
        )
    )
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with name_server(debian.host_address, NAME, debian.address) as asked:
        hardened.restart()
        assert NAME in asked
    keys = (broker_public, broker_secret, server_public)
    with (
        hardened.subscriber("student_1", tls=trusting, host=NAME) as subscriber,
        hardened.broker(curve=keys) as broker,
    ):
        send(broker, "student_1", "STARTED")
        assert json.loads(subscriber.recv(timeout=10)) == {"command": "STARTED"}
        stranger = (*zmq.curve_keypair(), server_public)
        with hardened.broker(curve=stranger) as other:
            other.linger = 0
            send(other, "student_1", "FAILED")
            send(broker, "student_1", "ENDED")
            assert json.loads(subscriber.recv(timeout=10)) == {"command": "ENDED"}
    for secret in (server_secret.decode(), certificate.private_key_pem.bytes().decode()[40:80]):
        assert secret not in debian.journal(UNIT)
        assert secret not in debian.path(LOG).read_text()


def test_every_part_works_under_it(hardened: Installed) -> None:
    api = "http://127.0.0.1:9000"
    hardened.configure(
        {
            "api": {},
            "logs": {},
            "aggregation": {"flush_interval": 0.5},
            "probes": {
                "jobs": [{"id": 1, "name": "own", "url": f"{api}/healthz", "interval": 1}],
            },
        }
    )
    hardened.restart()

    wait_for(
        lambda: int(hardened.debian.output("python3", "-c", COUNT)) > 0,
        f"a result of the probe in the table; {hardened.tail()}",
    )
    fetch = f"import requests; print(requests.get('{api}/healthz', timeout=5).status_code)"
    assert hardened.debian.output("python3", "-c", fetch) == "200"
    assert hardened.relays("student_2")
    assert hardened.debian.output("stat", "-c", "%U", "/var/lib/recodex-monitor/monitor.db") == (
        "recodex"
    )
    assert "degraded" not in hardened.debian.show(UNIT, "StatusText")
    assert "Traceback" not in hardened.debian.path(LOG).read_text()
    assert CONFIG in hardened.debian.journal(UNIT)


def test_messages_of_every_codec_are_decoded(hardened: Installed) -> None:
    said = hardened.debian.output(*decode_command())
    assert json.loads(said) == dict.fromkeys(BATCHES, DECODED)


def test_ping_works_under_it_where_the_system_permits_it_and_says_what_to_set_elsewhere(
    hardened: Installed,
) -> None:
    debian = hardened.debian
    job = {"id": 77, "kind": "ping", "url": "ping://127.0.0.1", "interval": 1}
    hardened.configure(
        {"api": {}, "aggregation": {"flush_interval": 0.5}, "probes": {"jobs": [job]}}
    )
    setting = "/proc/sys/net/ipv4/ping_group_range"
    refused = "not-permitted: set net.ipv4.ping_group_range"
    for groups, said in (("1 0", refused), ("0 2147483647", "None")):
        debian.run("bash", "-c", f"echo '{groups}' > {setting}")
        hardened.restart()
        wait_for(
            lambda said=said: debian.output("python3", "-c", LAST_PING).startswith(said),  # type: ignore[misc]
            f"{said} of the ping; {hardened.tail()}",
        )


def test_a_producer_and_a_consumer_work_as_units_of_their_own(hardened: Installed) -> None:
    debian = hardened.debian
    hardened.configure({"api": {}})
    hardened.restart()
    before = int(debian.output("python3", "-c", COUNT))
    jobs = [{"id": 2, "name": "unit", "url": "http://127.0.0.1:9000/healthz", "interval": 1}]
    logger = {"level": "info", "file": "/var/log/recodex/parts.log"}
    debian.write(
        "/etc/recodex/monitor/producer.yml",
        json.dumps({"logger": logger, "probes": {"jobs": jobs}}),
    )
    debian.write(
        "/etc/recodex/monitor/consumer.yml",
        json.dumps({"logger": logger, "aggregation": {"flush_interval": 0.5}}),
    )
    units = ("recodex-monitor@producer-1.service", "recodex-monitor@consumer.service")
    debian.run("systemctl", "start", *units)
    wait_for(
        lambda: int(debian.output("python3", "-c", COUNT)) > before,
        f"a result from one unit to the other; {debian.journal(units[0])[-500:]}"
        f" {debian.journal(units[1])[-500:]}",
    )
    assert "probes" in debian.show(units[0], "StatusText")
    assert "aggregation" in debian.show(units[1], "StatusText")
    assert debian.output("stat", "-c", "%U", f"/proc/{debian.show(units[0], 'MainPID')}") == (
        "recodex"
    )
    # An upgrade restarts what runs; a removal stops it.
    pids = {unit: debian.show(unit, "MainPID") for unit in units}
    debian.run("dpkg", "--install", "/srv/new.deb")
    for unit in units:
        wait_for(lambda: debian.show(unit, "ActiveState") == "active", f"{unit} again")  # noqa: B023
        assert debian.show(unit, "MainPID") != pids[unit]
    debian.run("dpkg", "--remove", "recodex-monitor")
    for unit in units:
        assert debian.show(unit, "ActiveState") in {"inactive", "failed"}
