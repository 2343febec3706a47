"""Whatever is at a path is read, or refused in a moment."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path

import pytest

from monitor.files import reading
from monitor.files.reading import file_names, file_stamp, read_file
from monitor.files.threads import call_aside


def refusal(file: str | Path, *, max_bytes: int = 1000, own: bool = False) -> str:
    with pytest.raises(OSError) as caught:
        read_file(file, max_bytes=max_bytes, own=own)
    return str(caught.value.strerror)


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 5_000_000)
    link = tmp_path / "link"
    link.symlink_to(file)
    assert read_file(link, max_bytes=5_000_000) == b"x" * 5_000_000
    assert refusal(file, max_bytes=4_999_999) == "longer than 4999999 bytes"


def test_a_file_that_has_no_size_is_still_bounded() -> None:
    assert refusal("/proc/self/maps", max_bytes=100) == "longer than 100 bytes"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/ptmx"])
def test_a_device_is_no_file(device: str) -> None:
    assert refusal(device) == "a device or a socket, not a regular file"


def test_a_pipe_is_refused_with_and_without_a_writer(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert refusal(fifo) == "a pipe, not a regular file"
    reading_end, writing_end = os.pipe()
    try:
        for number in (reading_end, writing_end):
            assert "a pipe" in refusal(f"/proc/self/fd/{number}")
    finally:
        os.close(reading_end)
        os.close(writing_end)


def test_what_cannot_be_opened_is_said(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "a directory, not a regular file"
    assert refusal(tmp_path / "nothing") == "No such file or directory"
    assert refusal("a\0b") == "a file name cannot contain NUL"
    assert refusal("/" + "x" * 5000) == "File name too long"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        assert refusal(tmp_path / "socket") == "No such device or address"


def test_the_callers_own_pipe_is_read_to_its_end() -> None:
    reading_end, writing_end = os.pipe()
    try:
        os.write(writing_end, b"from a program")
        os.close(writing_end)
        assert read_file(f"/dev/fd/{reading_end}", max_bytes=100, own=True) == b"from a program"
    finally:
        os.close(reading_end)


def test_what_hangs_is_given_up_and_costs_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("content")
    answers = threading.Event()
    asked = []

    def hang(path: str, *_: object, **__: object) -> bytes:
        asked.append(path)
        answers.wait(60)
        return b"late"

    with monkeypatch.context() as patched:
        patched.setattr(reading, "_LIMIT_S", 0.01)
        patched.setattr(reading, "_read", hang)
        assert refusal(file) == "no answer within 0.01 s"
        assert refusal(file) == "its file system does not answer"
        assert asked == [str(file)]
    assert file_stamp(file) is None
    answers.set()
    late = reading._late[str(file)]
    assert late.result(20) == b"late"
    assert read_file(file, max_bytes=100) == b"content"


def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    assert file_stamp(file) is None
    file.write_text("a")
    first = file_stamp(file)
    assert first == file_stamp(file)
    file.write_text("bc")
    assert file_stamp(file) not in (None, first)
    assert file_names(tmp_path) == ["file"]


def test_a_call_that_nobody_waits_for_any_more_holds_nobody() -> None:
    answers = threading.Event()

    async def life() -> None:
        call = asyncio.create_task(call_aside(answers.wait, 60))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    # Its end would wait for the threads of a pool.
    asyncio.run(life())
    answers.set()


def test_an_error_of_a_call_goes_to_whoever_waits() -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(call_aside(os.stat, "/nowhere"))
