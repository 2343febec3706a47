"""The kind dns against a name server that answers well, badly, or not at all."""

from __future__ import annotations

import itertools
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from monitor.errors import SettingError
from monitor.probes.checking import Checks
from monitor.probes.checks import read_job
from monitor.probes.resolver import Resolver
from tests.ports import free_port
from tests.probes.attempts import check, phases

served = pytest.mark.integration_test

RECORDS = {
    ("site.test.", "A"): ["192.0.2.1", "192.0.2.2"],
    ("xn--strae-oqa.test.", "A"): ["192.0.2.3"],
    ("_dmarc.site.test.", "TXT"): ['"v=DMARC1; p=none"'],
    (".", "NS"): ["ns.test."],
    ("long.test.", "A"): ["192.0.2.9"],
}
# In turns.
CHANGING = [["192.0.2.1"], ["192.0.2.1"], ["192.0.2.2"], ["192.0.2.1"]]


class NameServer:
    """Answers by name over UDP and TCP on one port."""

    def __init__(self) -> None:
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.tcp.getsockname()[1]
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", self.port))
        self.asked: list[str] = []
        self._lost = 0
        self._changing = itertools.cycle(CHANGING)
        self._threads = [
            threading.Thread(target=self._serve_udp),
            threading.Thread(target=self._serve_tcp),
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self.tcp.shutdown(socket.SHUT_RDWR)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", ("127.0.0.1", self.port))
        for thread in self._threads:
            thread.join()
        self.tcp.close()
        self.udp.close()

    def _serve_udp(self) -> None:
        while data := self.udp.recvfrom(4096):
            if not data[0]:
                return
            for answer in self._answers(data[0], udp=True):
                self.udp.sendto(answer, data[1])

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self.tcp.accept()
            except OSError:
                return
            with connection:
                while length := connection.recv(2):
                    (size,) = struct.unpack("!H", length)
                    answers = self._answers(connection.recv(size), udp=False)
                    for answer in answers:
                        connection.sendall(struct.pack("!H", len(answer)) + answer)
                    if not answers:
                        break

    def _answers(self, data: bytes, *, udp: bool) -> list[bytes]:
        query = dns.message.from_wire(data)
        name, kind = query.question[0].name.to_text(), query.question[0].rdtype.name
        self.asked.append(f"{name} {kind} {'udp' if udp else 'tcp'}")
        answer = dns.message.make_response(query)
        if name == "silent.test.":
            return []
        if name == "lossy.test.":
            self._lost += 1
            if self._lost == 1:
                return []
        if name.startswith("older") and query.edns >= 0:
            answer.use_edns(False)
            answer.set_rcode(dns.rcode.FORMERR if "notimp" not in name else dns.rcode.NOTIMP)
            return [answer.to_wire()]
        if name == "mistaken.test.":
            return [dns.message.make_response(dns.message.make_query(name, kind)).to_wire()]
        if name == "rubbish.test.":
            return [data[:2] + b"\xff" * 20]
        if name == "forged.test.":
            other = dns.message.make_response(dns.message.make_query(name, kind))
            return [other.to_wire(), b"x", answer.to_wire()]
        if name == "long.test." and udp:
            answer.flags |= dns.flags.TC
            return [answer.to_wire()]
        found = RECORDS.get((name, kind))
        if name == "changing.test.":
            found = next(self._changing)
        if found is not None:
            answer.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *found))
        elif name.startswith("nowhere"):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        return [answer.to_wire()]


@pytest.fixture(scope="module")
def server() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.close()


@served
@pytest.mark.parametrize(
    ("question", "keys", "error"),
    [
        ("site.test?type=A", {}, None),
        ("site.test", {"expected": [r"^192\.0\.2\.1$", r"\.2$"]}, None),
        ("site.test", {"transport": "tcp", "expected": [r"^192\.0\.2\.1$"]}, None),
        ("site.test", {"expected": ["^10[.]"]}, "body-mismatch: no record matches; 192.0.2."),
        ("straße.test", {"expected": ["[.]3$"]}, None),
        ("_dmarc.site.test?type=TXT", {"expected": ["v=DMARC1"]}, None),
        ("", {"expected": ["ns.test"]}, None),
        (
            "site.test?type=MX",
            {"expected": ["x"]},
            "body-mismatch: no record matches; there is none",
        ),
        ("nowhere.test", {}, "bad-rcode: NXDOMAIN"),
        ("nowhere.test", {"expected_rcode": "NXDOMAIN"}, None),
        ("long.test", {"expected": ["[.]9$"]}, None),
        ("lossy.test", {}, None),
        ("forged.test", {}, None),
        ("rubbish.test", {}, "bad-answer: "),
        ("mistaken.test", {"timeout": 0.5}, "bad-answer: not an answer to the question"),
        ("older.test", {}, None),
        ("older-notimp.test", {"transport": "tcp"}, None),
        ("silent.test", {"timeout": 0.5}, "timeout: "),
        ("silent.test", {"timeout": 5, "transport": "tcp"}, "reset: "),
    ],
)
async def test_an_answer_has_its_result(
    server: NameServer, question: str, keys: dict[str, Any], error: str | None
) -> None:
    outcome = await check(f"dns://127.0.0.1:{server.port}/{question}", **keys)
    assert (outcome.error or "").startswith(error or "")
    assert outcome.up == (error is None)
    if error is None:
        assert outcome.matched
        assert outcome.response_time == pytest.approx(sum(phases(outcome)))


@served
async def test_each_attempt_looks_at_its_own_answer(server: NameServer) -> None:
    url = f"dns://127.0.0.1:{server.port}/changing.test"
    checks = Checks(resolver_threads=1)
    try:
        attempt = checks.prepare(read_job({"id": 1, "kind": "dns", "url": url, "expected": ["1$"]}))
        assert [(await attempt()).up for _ in CHANGING] == [True, True, False, True]
    finally:
        await checks.close()


@served
@pytest.mark.parametrize("dead", ["127.0.0.9", "::1"])
async def test_an_address_that_does_not_answer_does_not_hide_the_next_one(
    server: NameServer, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def both(self: Resolver, host: str, ip_version: str) -> list[str]:
        # stands for a name with two addresses: no name server is asked here
        return [dead, "127.0.0.1"]

    monkeypatch.setattr(Resolver, "resolve", both)
    outcome = await check(f"dns://two.test:{server.port}/long.test", timeout=60)
    assert outcome.error is None


@served
async def test_nobody_there_is_refused() -> None:
    for transport in ("udp", "tcp"):
        outcome = await check(f"dns://127.0.0.1:{free_port()}/x", transport=transport, timeout=30)
        assert outcome.error == "refused: Connection refused"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"url": "dns://x/a/b"}, "must be dns://server[:port]/name?type=A"),
        ({"url": "dns://x/a?kind=A"}, "must be dns://server[:port]/name?type=A"),
        ({"url": "dns://x/a?type=A&type=MX"}, "must be dns://server[:port]/name?type=A"),
        ({"url": "dns://x/a#b"}, "must be dns://server[:port]/name?type=A"),
        ({"url": "dns://x:0/a"}, "'dns://x:0/a' has port 0"),
        ({"url": "dns://x/a?type=NONE1"}, "'NONE1' is not a type of record"),
        ({"url": "dns://x/a..b"}, "'a..b' is not a name"),
        ({"expected": ["("]}, "expected[0]: not a regular expression"),
        ({"expected_rcode": "NOEROR"}, "expected_rcode: 'NOEROR' is not a response code"),
        ({"transport": "tls"}, "transport: expected one of tcp, udp"),
        ({"body_regexp": "x"}, "body_regexp: unknown key for kind dns"),
    ],
)
def test_what_makes_no_sense_is_named(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        read_job({"id": 1, "kind": "dns", "url": "dns://x/a", **keys})
    assert said in str(caught.value)
