"""The kind grpc against a real gRPC server with the standard health service."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from hypothesis import given
from hypothesis import strategies as st

from monitor.errors import SettingError
from monitor.probes.checks import read_job
from monitor.probes.checks.grpc.health import serving_status
from tests.ports import free_port
from tests.probes.attempts import check
from tests.probes.certificates import Certificates
from tests.probes.misbehaving import Misbehaving

served = pytest.mark.integration_test


class _Servicer(health.HealthServicer):  # type: ignore[misc]
    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.service == "shop.Busy":
            context.abort(grpc.StatusCode.UNAVAILABLE, "try later")
        return super().Check(request, context)


@pytest.fixture(scope="module")
def ports(certificates: Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server's port without TLS, and one with."""
    issued = certificates.authority.issue_cert("localhost")
    key = issued.private_key_pem.bytes()
    chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
    server = grpc.server(ThreadPoolExecutor(4))
    servicer = _Servicer()
    statuses = health_pb2.HealthCheckResponse
    servicer.set("", statuses.SERVING)
    servicer.set("shop.Cart", statuses.SERVING)
    servicer.set("shop.Läden", statuses.SERVING)
    servicer.set("shop.Old", statuses.NOT_SERVING)
    servicer.set("shop.Odd", statuses.UNKNOWN)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    plain = server.add_insecure_port("127.0.0.1:0")
    secure = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    server.start()
    yield plain, secure
    server.stop(None).wait()


@served
@pytest.mark.parametrize(
    ("service", "error"),
    [
        ("", None),
        ("/shop.Cart", None),
        ("/shop.Läden", None),
        ("/shop.Old", "not-serving: NOT_SERVING"),
        ("/shop.Odd", "not-serving: UNKNOWN"),
        ("/shop.None", "not-serving: the service is not known"),
        ("/shop.Busy", "bad-status: gRPC status '14' UNAVAILABLE: b'try later'"),
    ],
)
async def test_a_service_is_up_if_it_serves(
    ports: tuple[int, int], certificates: Certificates, service: str, error: str | None
) -> None:
    outcome = await check(f"grpc://127.0.0.1:{ports[0]}{service}", timeout=60)
    assert outcome.error == error
    assert outcome.matched == (None if service == "/shop.Busy" else error is None)
    assert outcome.response_time is not None
    url = f"grpcs://localhost:{ports[1]}{service}"
    keys: dict[str, Any] = {"timeout": 60, "ip_version": "4"}
    outcome = await check(url, ca_file=certificates.file, **keys)
    assert outcome.error == error
    assert outcome.certificate_expires_at is not None
    assert (await check(url, **keys)).error is not None


@served
async def test_what_does_not_speak_it_is_down(tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    outcome = await check(f"grpc://127.0.0.1:{port}", timeout=60)
    assert (outcome.error or "").startswith("bad-answer: gRPC status '12'")
    server.stop(None).wait()
    with closing(Misbehaving()) as web:
        outcome = await check(f"grpc://127.0.0.1:{web.port}", timeout=60)
    assert outcome.error == "bad-answer: not HTTP/2"
    outcome = await check(f"grpc://127.0.0.1:{free_port()}")
    assert outcome.error == "refused: Connection refused"


@given(st.binary(max_size=20))
def test_any_answer_is_a_status_or_none(data: bytes) -> None:
    assert serving_status(data) is None or data[:1] == b"\0"
    framed = b"\0" + len(data).to_bytes(4, "big") + data
    assert serving_status(framed) is None or framed[5:6] in (b"", b"\x08")


def test_a_status_may_have_several_bytes() -> None:
    assert serving_status(b"\0\0\0\0\3\x08\xac\x02") == "status 300"
    assert serving_status(b"\0\0\0\0\3\x08\x81\x00") == "SERVING"
    assert serving_status(b"\0\0\0\0\2\x08\x80") is None


@pytest.mark.parametrize(
    "url", ["grpc://x", "grpc://x:1/?q", "grpc://u:p@x:1", "grpc://x:1/%ff", "http://x:1"]
)
def test_what_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(SettingError):
        read_job({"id": 1, "kind": "grpc", "url": url})
