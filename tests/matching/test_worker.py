"""The process that matches, without a daemon around it."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from monitor.matching import WORKER
from monitor.matching.worker import HEADER, SEARCH

REQUEST = HEADER.pack(SEARCH, 1, 0, 1, 60_000) + b"aa"


@pytest.mark.integration_test
@pytest.mark.parametrize("requests", [REQUEST, REQUEST * 1000], ids=["one", "many"])
def test_it_ends_in_silence_where_nobody_takes_its_answers(requests: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-I", "-S", WORKER]
        end = theirs.fileno()
        process = subprocess.Popen(command, stdin=end, stdout=end, stderr=subprocess.PIPE)
        theirs.close()
        ours.sendall(requests)
        # The daemon is killed before it reads the answer.
        ours.recv(1, socket.MSG_PEEK)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, b"")
