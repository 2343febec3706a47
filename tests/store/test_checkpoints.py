from __future__ import annotations

import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from monitor.sqlite.connection import write_ahead
from monitor.store.checkpoints import Checkpoints

ENDS = 500


@pytest.fixture
def threads_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def connect(tmp_path: Path) -> Callable[[], sqlite3.Connection]:
    def connect() -> sqlite3.Connection:
        raw = sqlite3.connect(tmp_path / "some.db", isolation_level=None, check_same_thread=False)
        write_ahead(raw, patience=5)
        return raw

    return connect


@pytest.mark.usefixtures("threads_change_often")
def test_an_end_just_when_the_first_commit_starts_the_thread_leaves_none(
    connect: Callable[[], sqlite3.Connection],
) -> None:
    for _ in range(ENDS):
        checkpoints = Checkpoints(connect)
        writer = threading.Thread(target=checkpoints.committed)
        writer.start()
        while (thread := checkpoints._thread) is None:
            pass
        checkpoints.close()
        writer.join(60)
        thread.join(60)
        assert not thread.is_alive()


def test_where_no_thread_can_be_had_the_next_commit_asks_again(
    connect: Callable[[], sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    checkpoints = Checkpoints(connect)
    with monkeypatch.context() as none_left:
        none_left.setattr(threading.Thread, "start", refuse)
        checkpoints.committed()
    checkpoints.committed()
    assert checkpoints._thread is not None
    assert checkpoints._thread.is_alive()
    checkpoints.close()
