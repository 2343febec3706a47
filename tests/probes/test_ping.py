"""The kind ping against this host, and addresses that do not answer."""

from __future__ import annotations

import os
import socket

import pytest

from monitor.errors import SettingError
from monitor.probes.checks import read_job
from tests.probes.attempts import check, phases

served = pytest.mark.integration_test


def may_ping() -> bool:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
    except OSError:
        return False
    return True


@served
@pytest.mark.skipif(not may_ping(), reason="needs net.ipv4.ping_group_range")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_host_that_answers_is_up(host: str) -> None:
    outcome = await check(f"ping://{host}", count=3, ip_version="4", timeout=60)
    assert (outcome.error, outcome.degraded) == (None, False)
    assert outcome.response_time == pytest.approx(sum(phases(outcome)))
    assert outcome.phases.processing > 0


@served
@pytest.mark.skipif(not may_ping(), reason="needs net.ipv4.ping_group_range")
async def test_an_address_without_a_host_is_down() -> None:
    # Nothing leaves this host: the addresses for documentation are unreachable, or unanswered.
    outcome = await check("ping://240.0.0.1", timeout=1)
    assert outcome.error is not None
    assert outcome.error.partition(":")[0] in ("unreachable", "timeout")
    assert outcome.response_time is None


@served
async def test_a_system_that_does_not_permit_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    original = socket.socket

    def refuse(
        family: int, kind: int = socket.SOCK_STREAM, protocol: int = 0, *more: int
    ) -> object:
        # stands for a kernel whose ping_group_range is empty: the test host's cannot be changed
        if protocol == socket.IPPROTO_ICMP:
            raise PermissionError(13, os.strerror(13))
        return original(family, kind, protocol, *more)

    monkeypatch.setattr("monitor.probes.checks.ping.socket.socket", refuse)
    outcome = await check("ping://127.0.0.1")
    assert (outcome.error or "").startswith("not-permitted: set net.ipv4.ping_group_range")


@pytest.mark.skipif(not may_ping(), reason="needs net.ipv4.ping_group_range")
async def test_an_address_that_is_not_permitted_is_unreachable() -> None:
    # Without SO_BROADCAST the system refuses it.
    outcome = await check("ping://255.255.255.255")
    assert (outcome.error or "").startswith("unreachable: ")


@pytest.mark.parametrize(
    "url", ["ping://x:1", "ping://x/path", "ping://u@x", "ping://x?q", "ping://"]
)
def test_what_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(SettingError):
        read_job({"id": 1, "kind": "ping", "url": url})
