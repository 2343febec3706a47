"""A check that fails for what the daemon itself lacks says nothing about the site."""

from __future__ import annotations

import contextlib
import errno
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from monitor.probes.checking import Checks, check_job
from monitor.probes.checks import kind_of, read_job
from monitor.probes.no_result import OwnTroubleError, own_trouble

NO_DESCRIPTORS = "out of file descriptors"


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let nothing more be opened; what is open stays."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def port() -> Iterator[int]:
    """Return a port where connections are accepted."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def why_not_checked(url: str, **keys: Any) -> str:
    job = read_job({"id": 1, "kind": kind_of(url), "url": url, **keys})
    checks = Checks(resolver_threads=1)
    try:
        attempt = checks.prepare(job)
        with no_descriptors(), pytest.raises(OwnTroubleError) as raised:
            await check_job(job, attempt)
    finally:
        await checks.close()
    return raised.value.trouble


@pytest.mark.integration_test
@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{}/",
        "https://127.0.0.1:{}/",
        "http://localhost:{}/",
        "tcp://127.0.0.1:{}",
        "tcp://localhost:{}",
        "ws://127.0.0.1:{}/",
        "tls://127.0.0.1:{}",
        "dns://127.0.0.1:{}/example.org",
        "dns://localhost:{}/example.org",
        "ping://127.0.0.1",
        "grpc://127.0.0.1:{}/",
    ],
)
async def test_without_a_descriptor_left_no_kind_of_check_has_a_result(url: str, port: int) -> None:
    assert await why_not_checked(url.format(port)) == NO_DESCRIPTORS


@pytest.mark.integration_test
async def test_without_a_descriptor_left_a_check_through_a_proxy_has_no_result(port: int) -> None:
    for scheme in ("http", "ws"):
        proxy = f"http://127.0.0.1:{port}"
        assert await why_not_checked(f"{scheme}://a.example/", proxy=proxy) == NO_DESCRIPTORS


@pytest.mark.integration_test
async def test_without_a_descriptor_left_no_process_matches_and_the_next_one_does() -> None:
    from monitor.probes.matching import Matcher

    matcher = Matcher()
    try:
        with no_descriptors(), pytest.raises(OSError) as raised:
            await matcher.search("a", b"a", job_id=1, timeout_s=60)
        assert own_trouble(raised.value) == NO_DESCRIPTORS
        assert await matcher.search("a", b"a", job_id=1, timeout_s=60)
    finally:
        await matcher.close()


@pytest.mark.parametrize(
    ("error", "trouble"),
    [
        (OSError(errno.EMFILE, ""), NO_DESCRIPTORS),
        (OSError(errno.ENFILE, ""), "the system is out of file descriptors"),
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOMEM, ""), "out of memory"),
        (socket.gaierror(socket.EAI_MEMORY, ""), "out of memory"),
        (RuntimeError("can't start new thread"), "out of threads"),
        (BlockingIOError(errno.EAGAIN, ""), "out of processes"),
        (RuntimeError("something else"), None),
        (OSError(errno.ECONNREFUSED, ""), None),
        (socket.gaierror(socket.EAI_NONAME, ""), None),
        (TimeoutError(), None),
        (ValueError(), None),
    ],
)
def test_what_the_daemon_lacks_is_told_from_what_a_site_does(
    error: BaseException, trouble: str | None
) -> None:
    assert own_trouble(error) == trouble
