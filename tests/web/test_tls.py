from __future__ import annotations

import argparse
import datetime
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import trustme
from websockets.sync.client import connect

from monitor.commands.api import Api
from monitor.errors import MonitorError, SettingError, UsageError
from monitor.part import Health
from monitor.transport.tls import ClientTLSSettings
from monitor.web.settings import ApiSettings
from tests.waiting import LIMIT_S, wait_for
from tests.web.serving import Serving, serving


class Files:
    """Certificates of a server and of clients, as an operator has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(folder / "ca.pem")
        self.others = trustme.CA()
        self.renew()
        for name, authority in (("known", self.authority), ("unknown", self.others)):
            issued = authority.issue_cert("device@example.org")
            issued.private_key_and_cert_chain_pem.write_to_path(folder / f"{name}.pem")
        (folder / "config.yml").write_text("{}")

    def renew(self, until: datetime.datetime | None = None) -> None:
        begin = None if until is None else until - datetime.timedelta(days=90)
        issued = self.authority.issue_cert("localhost", not_after=until, not_before=begin)
        issued.private_key_pem.write_to_path(self.folder / "key.pem")
        (self.folder / "cert.pem").write_bytes(
            b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        )

    def settings(self, *, client_ca: bool = False) -> ClientTLSSettings:
        return ClientTLSSettings(
            certificate=str(self.folder / "cert.pem"),
            key=str(self.folder / "key.pem"),
            client_ca=str(self.folder / "ca.pem") if client_ca else None,
        )

    def context(self, client: str | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if client is not None:
            context.load_cert_chain(self.folder / f"{client}.pem")
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def server(files: Files) -> Iterator[Serving]:
    with serving(tls=files.settings()) as server:
        yield server


def api(server: Serving, *, host: str = "localhost", **options: str | None) -> Api:
    defaults: dict[str, str | None] = {
        "api": f"https://{host}:{server.port}",
        "config": None,
        "ca_file": None,
        "client_certificate": None,
    }
    return Api(argparse.Namespace(**{**defaults, **options}))


def served(server: Serving, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as tls,
    ):
        # With TLS 1.3 a client learns only from an answer that it was refused.
        tls.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        assert tls.recv(12) == b"HTTP/1.1 200"
        assert not tls.session_reused
        return tls.getpeercert(binary_form=True) or b""


def test_the_api_its_sockets_and_its_commands_over_tls(server: Serving, files: Files) -> None:
    ca = str(files.folder / "ca.pem")
    answer = requests.get(f"https://localhost:{server.port}/", verify=ca, timeout=LIMIT_S)
    assert answer.status_code == 200
    with connect(f"wss://localhost:{server.port}/live", ssl=files.context()) as page:
        assert page.recv(timeout=LIMIT_S)
    command = api(server, ca_file=ca)
    assert command.request("GET", "/healthz")["status"] == "ok"
    assert command.websocket_url.startswith("wss://")


def test_a_command_with_the_config_trusts_the_certificate_in_it_and_no_other(
    server: Serving, files: Files
) -> None:
    config = files.folder / "config.yml"
    settings = f"api: {{uri: [127.0.0.1, {server.port}], tls: {{certificate: CERT, key: KEY}}}}"
    key = str(files.folder / "key.pem")
    text = settings.replace("CERT", str(files.folder / "cert.pem")).replace("KEY", key)
    config.write_text(text)
    assert api(server, api=None, config=str(config)).request("GET", "/healthz")
    both = files.folder / "unknown.pem"
    config.write_text(settings.replace("CERT", str(both)).replace("KEY", str(both)))
    with pytest.raises(MonitorError, match="TLS failed"):
        api(server, api=None, config=str(config)).request("GET", "/healthz")


@pytest.mark.parametrize(
    ("option", "problem"),
    [("ca_file", "--ca-file: cannot use"), ("client_certificate", "--client-certificate: cannot")],
)
def test_files_that_a_command_cannot_use_are_errors(
    server: Serving, files: Files, option: str, problem: str
) -> None:
    for file in (files.folder / "none.pem", files.folder / "config.yml"):
        with pytest.raises(UsageError, match=problem):
            api(server, **{option: str(file)})


def refused(server: Serving) -> dict[str, float]:
    (metric,) = (each for each in server.web.metrics() if "handshakes" in each.name)
    return {labels["reason"]: count for labels, count in metric.samples}


def test_a_client_without_tls_gets_no_answer_and_harms_nobody(
    server: Serving, files: Files, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://localhost:{server.port}/", timeout=LIMIT_S)
    with pytest.raises(ssl.SSLCertVerificationError):
        served(server, ssl.create_default_context())
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S):
        pass
    served(server, files.context())
    wait_for(lambda: refused(server) == {"tls-plain": 1, "tls": 1, "tls-silent": 1}, "counts")
    lines = [record.getMessage() for record in caplog.records if record.name == "monitor.web"]
    assert [line.split(": ", 1)[1] for line in lines if "refused" in line] == [
        "plain HTTP where TLS is spoken",
        "the TLS handshake failed: tlsv1 alert unknown ca",
    ]


def test_a_reload_renews_the_certificate_and_may_require_those_of_clients(
    server: Serving, files: Files
) -> None:
    first = served(server, files.context())
    files.renew()
    assert served(server, files.context()) == first
    uri = ("127.0.0.1", 0)
    server.reload(ApiSettings(uri=uri, tokens_file=None, tls=files.settings()))
    second = served(server, files.context())
    assert second != first
    server.reload(ApiSettings(uri=uri, tokens_file=None, tls=files.settings(client_ca=True)))
    assert served(server, files.context("known")) == second
    for client in (None, "unknown"):
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            served(server, files.context(client))
    known = api(
        server,
        ca_file=str(files.folder / "ca.pem"),
        client_certificate=str(files.folder / "known.pem"),
    )
    assert known.request("GET", "/healthz")
    # A reload that cannot be applied changes nothing.
    for content in (b"nothing", b"\xff\x00"):
        (files.folder / "ca.pem").write_bytes(content)
        with pytest.raises(SettingError, match="has no PEM certificate of an authority"):
            server.reload(
                ApiSettings(uri=uri, tokens_file=None, tls=files.settings(client_ca=True))
            )


def test_handshakes_that_never_end_are_closed(files: Files) -> None:
    with serving(tls=files.settings(), request_timeout=0.5) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as idle:
            began = time.monotonic()
            assert idle.recv(1) == b""
            assert time.monotonic() - began >= 0.4
        served(server, files.context())
        assert refused(server) == {"tls-silent": 1}


def test_state_and_metrics_say_when_the_certificate_expires(files: Files) -> None:
    until = datetime.datetime(2051, 2, 3, 4, 5, tzinfo=datetime.UTC)
    files.renew(until)
    with serving(tls=files.settings()) as server:
        state = server.web.state()
        assert state.health is Health.OK
        assert state.summary.endswith("certificate expires 2051-02-03 04:05 UTC")
        (metric,) = (each for each in server.web.metrics() if "expires" in each.name)
        assert metric.samples == [({}, until.timestamp())]
        files.renew(datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC))
        server.reload(ApiSettings(uri=("127.0.0.1", 0), tokens_file=None, tls=files.settings()))
        state = server.web.state()
        assert state.health is Health.DEGRADED
        assert state.summary.endswith("certificate expired 2024-01-01 00:00 UTC")
