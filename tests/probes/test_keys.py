"""No key of any kind is ignored: it is refused, or what checks the site reads it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.typing import Subprotocol

from monitor.daemon.config import load
from monitor.errors import ConfigError, SettingError
from monitor.probes.beats import Beat
from monitor.probes.check import Outcome
from monitor.probes.checking import Checks, check_job
from monitor.probes.checks import KINDS, read_job
from monitor.probes.degraded import judged
from monitor.probes.job import Job
from monitor.probes.jobs_file import read_jobs
from monitor.probes.tls import TlsKeys
from monitor.web.http.problems import Problem
from monitor.web.routes.job_bodies import verified_job
from tests.probes.certificates import Certificates
from tests.probes.misbehaving import Misbehaving
from tests.probes.test_dns import NameServer
from tests.servers.daemon import ROOT

# What says when a job runs and how it is shown, in the schedule, the lists and the alerts.
OF_THE_JOB = {"id", "name", "url", "interval", "active", "tags", "depends_on"}
# By key, a value that is not the default; FILE is a certificate with its key.
VALUES: dict[str, Any] = {
    "timeout": 7,
    "retries": 1,
    "ip_version": "4",
    "degraded_after": 3,
    "method": "POST",
    "headers": {"x-one": "1"},
    "body": "text",
    "expected_status": [200, 201],
    "body_regexp": "hello",
    "body_absent_regexp": "never",
    "json": "`true`",
    "header_regexps": {"content-length": "."},
    "follow_redirects": False,
    "max_redirects": 3,
    "max_body_bytes": 1000,
    "decode": False,
    "stream": True,
    "proxy": "http://127.0.0.1:9",
    "http_version": "1.1",
    "verify_tls": False,
    "ca_file": "FILE",
    "client_certificate": "FILE",
    "client_key": "FILE",
    "tls_min_version": "1.3",
    "server_name": "localhost",
    "certificate_days": 9,
    "dialogue": [{"expect": "hello"}],
    "tls": True,
    "starttls": "smtp",
    "subprotocol": "chat",
    "expected": ["x"],
    "expected_rcode": "NXDOMAIN",
    "transport": "tcp",
    "count": 2,
    "grace": 5,
}
# Keys that need another one.
WITH: dict[str, dict[str, Any]] = {"client_key": {"client_certificate": "FILE"}}
# Of each kind, jobs that get far enough together to need every key.
FORMS: dict[str, list[dict[str, Any]]] = {
    "http": [
        {"url": "http://127.0.0.1:HTTP/redirect/2"},
        {"url": "https://127.0.0.1:9/"},
        {"url": "http://127.0.0.1:9/"},
    ],
    "tcp": [
        {"url": "tcp://127.0.0.1:TALK"},
        {"url": "tcp://127.0.0.1:TALK", "tls": True},
        {"url": "tcp://127.0.0.1:9"},
    ],
    "websocket": [{"url": "ws://127.0.0.1:SOCKET/"}, {"url": "wss://127.0.0.1:9/"}],
    "tls": [{"url": "tls://127.0.0.1:TALK"}],
    "dns": [{"url": "dns://127.0.0.1:DNS/site.test"}, {"url": "dns://127.0.0.1:9/site.test"}],
    "ping": [{"url": "ping://127.0.0.1"}, {"url": "ping://nowhere.invalid"}],
    "grpc": [{"url": "grpc://127.0.0.1:9"}, {"url": "grpcs://127.0.0.1:9"}],
    "heartbeat": [{}],
}
CASES = [
    (kind, key)
    for kind in KINDS
    for key in KINDS[kind].job.__struct_fields__
    if key not in OF_THE_JOB
]
TLS_KEYS = [key for key in TlsKeys.__struct_fields__ if key not in Job.__struct_fields__]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Servers to ask, and a file."""
    directory = tmp_path_factory.mktemp("keys")
    certificates = Certificates(directory)
    file = directory / "client.pem"
    certificates.authority.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(file)
    with closing(Misbehaving()) as web, closing(NameServer()) as names, closing(Talk()) as talk:
        yield {
            "HTTP": web.port,
            "DNS": names.port,
            "TALK": talk.port,
            "SOCKET": talk.socket_port,
            "FILE": file,
        }


class Talk:
    """Says hello to all clients, as a line or over a WebSocket."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._greet, "127.0.0.1", 0)
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        self._sockets = self._loop.run_until_complete(self._serve())
        self.socket_port: int = next(iter(self._sockets.sockets)).getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\r\n")
        await reader.read(1)
        writer.close()

    async def _serve(self) -> Server:
        def choose(server: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
            return offered[0] if offered else None

        return await serve(
            lambda peer: peer.send("hello"), "127.0.0.1", 0, select_subprotocol=choose
        )

    async def _end(self) -> None:
        self._server.close()
        self._sockets.close()
        await self._sockets.wait_closed()

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def filled(value: Any, places: dict[str, Any]) -> Any:
    text = msgspec.json.encode(value).decode()
    for name, place in places.items():
        text = text.replace(name, str(place))
    return msgspec.json.decode(text)


def watched(job: Job, read: set[str]) -> Job:
    """Return the job with every reading of a key noted."""
    kind: Any = type(job)
    tag = kind.__struct_config__.tag

    class Watched(kind, frozen=True, kw_only=True, tag=tag):  # type: ignore[misc, call-arg]
        def __getattribute__(self, name: str) -> Any:
            read.add(name)
            return super().__getattribute__(name)

    found: Job = Watched(**{key: getattr(job, key) for key in job.__struct_fields__})
    return found


@pytest.mark.integration_test
@pytest.mark.parametrize(("kind", "key"), CASES)
async def test_a_key_is_refused_or_read(kind: str, key: str, places: dict[str, Any]) -> None:
    read: set[str] = set()
    refusals = 0
    for form in FORMS[kind]:
        base = filled({"id": 1, "kind": kind, **form}, places)
        read_job(base)
        try:
            job = read_job({**base, **filled({**WITH.get(key, {}), key: VALUES[key]}, places)})
        except SettingError as error:
            assert {error.path[0]} <= {key, *WITH.get(key, {})}
            refusals += 1
            continue
        checks = Checks(resolver_threads=1)
        checks.beats.take(1, Beat(time.time()), time.monotonic())
        try:
            seen = watched(job, read)
            await check_job(seen, checks.prepare(seen))
            up = Outcome(up=True, response_time=9, certificate_expires_at=1.0)
            judged(seen, up, now=0)
        finally:
            checks.beats.close()
            await checks.close()
    assert key in read or refusals == len(FORMS[kind])
    # Only a heartbeat, which asks nobody, has keys of all jobs that it refuses.
    assert key in read or kind == "heartbeat"


@pytest.mark.parametrize("key", TLS_KEYS)
@pytest.mark.parametrize(
    "job",
    [
        {"kind": "tcp", "url": "tcp://x:1"},
        {"kind": "websocket", "url": "ws://x/"},
        {"kind": "grpc", "url": "grpc://x:1"},
        {"kind": "http", "url": "http://x/", "follow_redirects": False},
        {"kind": "http", "url": "http://x/", "max_redirects": 0},
    ],
    ids=["tcp", "ws", "grpc", "http", "http without redirects"],
)
def test_a_key_of_tls_is_refused_where_there_is_none_wherever_the_job_comes_from(
    job: dict[str, Any], key: str, tmp_path: Path, places: dict[str, Any]
) -> None:
    bad = filled({"id": 1, **job, **WITH.get(key, {}), key: VALUES[key]}, places)
    said = "the job does not speak TLS: "
    file = tmp_path / "config.yml"
    file.write_text(yaml.safe_dump({"probes": {"jobs": [bad]}}))
    with pytest.raises(ConfigError) as caught:
        load(str(file))
    assert said in str(caught.value)
    jobs = tmp_path / "jobs.yml"
    jobs.write_text(yaml.safe_dump([bad]))
    (line,) = read_jobs(jobs).refused
    assert said in line
    with pytest.raises(Problem) as answered:
        verified_job(bad)
    assert answered.value.status_code == 422
    assert said in answered.value.detail


@pytest.mark.integration_test
def test_the_command_line_refuses_it_too() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "probe", "ws://127.0.0.1:9/", "--server-name=a"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "--server-name" in done.stderr or "server_name" in done.stderr
    assert "the job does not speak TLS: use wss://" in done.stderr


def test_https_proxies_and_redirects_may_lead_to_tls(places: dict[str, Any]) -> None:
    for more in ({}, {"follow_redirects": False, "proxy": "https://p:1"}):
        read_job({"id": 1, "url": "http://x/", "verify_tls": False, **more})
