"""The kind tcp: banners."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.probes.attempts import check, phases

pytestmark = pytest.mark.integration_test


@pytest.fixture
def banner() -> Iterator[Callable[[bytes, bool], int]]:
    """Serve one peer: say these bytes one by one, and keep the line open or not."""
    ended = threading.Event()
    threads = []

    def start(text: bytes, keep_open: bool) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(10)

        def talk() -> None:
            # A check that has seen enough hangs up, and may reset what is still being sent.
            with contextlib.suppress(OSError), listener, listener.accept()[0] as connection:
                for byte in text:
                    connection.sendall(bytes([byte]))
                if keep_open:
                    ended.wait(10)

        thread = threading.Thread(target=talk)
        thread.start()
        threads.append(thread)
        port: int = listener.getsockname()[1]
        return port

    yield start
    ended.set()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    ("text", "keep_open", "expression", "error"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n", True, r"^SSH-2\.0", None),
        (b"220 mail ESMTP\r\n", True, "ESMTP", None),
        (b"220 mail ESMTP\r\n", True, "^220 .*ESMTP$", None),
        (b"421 too busy\r\n", False, "^220 ", "body-mismatch: the banner was b'421 too busy"),
        (b"", False, "x", "body-mismatch: the banner was b''"),
        (b"hello", True, "x", "body-mismatch: the banner was b'hello'"),
        (b"421 too many connections\r\n", True, "^220 ", "body-mismatch: the banner was b'421 too"),
        (b"220-mail.example\r\n220 ready\r\n", True, "^220 ", None),
        (b"", True, "x", "timeout: "),
        (b"z" * 5000, True, "x", "body-mismatch: "),
        (b"", True, None, None),
    ],
)
async def test_a_banner_must_match(
    banner: Callable[[bytes, bool], int],
    text: bytes,
    keep_open: bool,
    expression: str | None,
    error: str | None,
) -> None:
    # A server that may say more has until the timeout.
    timeout = 0.5 if error is not None and keep_open and len(text) < 4096 else 10
    port = banner(text, keep_open)
    outcome = await check(f"tcp://127.0.0.1:{port}", body_regexp=expression, timeout=timeout)
    if error is None:
        assert outcome.up
        assert outcome.response_time == pytest.approx(sum(phases(outcome)))
    else:
        assert outcome.error is not None
        assert outcome.error.startswith(error)
        if keep_open and len(text) < 4096:
            assert outcome.response_time is None
