"""Databases that no waiting makes usable: one line that says what to do, and no traceback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.errors import MonitorError, SettingError
from monitor.store import DatabaseSettings, open_store
from tests.waiting import until


async def start(settings: DatabaseSettings) -> None:
    store = open_store(settings)
    try:
        await store.start()
    finally:
        await store.close()


def open_files() -> set[str]:
    """Return what this process has open."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that the listing itself used
            found.add(str(descriptor.readlink()))
    return found


@pytest.mark.parametrize("content", [b"random" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
async def test_a_damaged_file_ends_with_advice(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "monitor.db"
    file.write_bytes(content)
    with pytest.raises(MonitorError, match="move it aside and start again") as caught:
        await start(DatabaseSettings(file=str(file)))
    assert caught.value.exit_status == 1
    assert str(file) in str(caught.value)
    assert file.read_bytes() == content
    # The error still refers to what it happened in; nothing there holds the file open.
    assert str(file) not in open_files()


async def test_a_directory_in_the_files_place_is_called_that(tmp_path: Path) -> None:
    file = tmp_path / "monitor.db"
    file.mkdir()
    with pytest.raises(MonitorError, match=f"^database {file}: this is a directory") as caught:
        await start(DatabaseSettings(file=str(file)))
    assert caught.value.exit_status == 1


async def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    directory = tmp_path / "missing"
    with pytest.raises(MonitorError, match=f": there is no directory {directory}$") as caught:
        await start(DatabaseSettings(file=str(directory / "monitor.db")))
    assert caught.value.exit_status == 1


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Be nobody, where this is root."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.parametrize("below", ["monitor.db", "hidden/monitor.db"])
async def test_a_directory_where_nothing_can_be_written_is_named(below: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / below
        file.parent.mkdir(exist_ok=True)
        Path(name).chmod(0o000)
        try:
            said = rf": cannot write in {file.parent}( \(\w+ is owned by root; this is nobody\))?$"
            with without_rights(), pytest.raises(MonitorError, match=said):
                await start(DatabaseSettings(file=str(file)))
        finally:
            Path(name).chmod(0o700)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@127.0.0.1:1/x?password=PW&foo=bar",
        "postgresql://u@127.0.0.1/x?port=PW",
        "postgresql://u@127.0.0.1:PW/x",
        "postgresql://u@127.0.0.1:70000/x",
        "postgresql://u@[::1]:PW/x",
        "postgresql://u@one:5432,two:PW/x",
        "postgresql://u:PW/@host/x",
        "postgresql://u:PW%zz@host/x",
        "postgresql://u:PW@host/x?novalue",
        "postgresql://u@[::1/PW",
    ],
)
def test_a_url_that_libpq_cannot_parse_is_bad_config(url: str) -> None:
    pytest.importorskip("psycopg2")
    with pytest.raises(SettingError) as caught:
        DatabaseSettings(url=url).verify()
    said = str(caught.value)
    assert said.startswith("url: ")
    assert "\n" not in said
    assert "PW" not in said


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:pw@127.0.0.1:5432/x?sslmode=require&application_name=a",
        "postgres://[::1]:5432/x",
        "postgresql://one:5432,two/x?target_session_attrs=read-write",
        "postgresql:///x?host=/run/postgresql&port=5433",
    ],
)
def test_a_url_that_libpq_takes_is_taken(url: str) -> None:
    DatabaseSettings(url=url).verify()


async def test_connecting_with_such_a_url_leaves_no_traceback(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg2")
    ended: list[object] = []
    monkeypatch.setattr(threading, "excepthook", ended.append)

    with caplog.at_level(logging.INFO):
        # Not verified, as a URL would be that only a later libpq refuses.
        store = open_store(DatabaseSettings(url="postgresql://u@127.0.0.1:1/x?password=PW&foo=bar"))
        listening = asyncio.create_task(anext(store.listen("c")))
        try:
            with pytest.raises(MonitorError, match="libpq cannot parse") as caught:
                await store.read(lambda connection: connection.query("SELECT 1"))
            assert caught.value.exit_status == 1
            await until(lambda: "cannot listen" in caplog.text)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
            await store.close()
    assert not ended
    assert "PW" not in caplog.text
