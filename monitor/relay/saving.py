"""Saves histories to their file as they grow, and restores them at the start.

The loop only cuts slices of new messages; a thread writes them. There is no queue in between:
unsaved messages are in the histories anyway, so a slow or full disk costs no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from monitor.errors import MonitorError, SettingError
from monitor.files.owner import owner_remark
from monitor.log_limits import OutageLog
from monitor.relay.channel import Channel
from monitor.relay.channels import Channels
from monitor.relay.feed import Feed, SteadyTime
from monitor.relay.history_file import (
    ChannelRow,
    ChunkRow,
    HistoryFile,
    SaveBatch,
    Saved,
    after_a_crash,
)
from monitor.sqlite.file import OpenFile, Writing
from monitor.sqlite.own_file import (
    DamagedFileError,
    ForeignFileError,
    set_aside,
)

__all__ = ["Saving"]

logger = logging.getLogger("monitor.relay")

# At most a second is lost to kill -9: this, and the time that writing takes.
_PERIOD_S = 0.4
_RETRY_S = 5.0
# One batch: the loop cuts it in about a millisecond, and the thread writes it at once.
_BATCH_CHANNELS = 200
_BATCH_BYTES = 4 * 1024 * 1024
_KEY = ("history_file",)
# Errors that are not the config's fault, and may be gone when the daemon starts again.
_DISK_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS}
_T = TypeVar("_T")


class Saving:
    """Owns the history file and the thread that writes it."""

    def __init__(
        self,
        path: Path,
        channels: Channels,
        feed: Feed,
        *,
        clock: Callable[[], float],
        time: SteadyTime,
    ) -> None:
        self._path = path
        self._channels = channels
        self._feed = feed
        self._clock = clock
        self._time = time
        self._thread: ThreadPoolExecutor | None = None
        self._file: HistoryFile | None = None
        self._lock = asyncio.Lock()
        self._next_key = 1
        # Cut, but not known to be written.
        self._pending: SaveBatch | None = None
        self.outage = OutageLog(logger)
        self.writing = Writing(path)
        self.failures = 0
        self.saved_bytes = 0

    async def start(self) -> None:
        """Open the file and restore the histories in it.

        Raises SettingError if the file cannot be used, MonitorError if its disk is full or fails.
        """
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="relay-history")
        saved = await self._in_thread(self._open)
        restored = [channel for channel, _ in saved.channels]
        if not saved.clean:
            after_a_crash(restored, self._channels.new_epoch())
        if saved.at is not None:
            self._time.not_before(saved.at)
        now = self._time()
        self._next_key = 1 + max((channel.key for channel in restored), default=0)
        self._channels.unsaved = {}
        self._channels.restore(
            ((channel, now - at) for channel, at in saved.channels), self._clock()
        )
        if not saved.clean:
            self._channels.unsaved.update(dict.fromkeys(self._channels))
        if saved.at is not None:
            how = "" if saved.clean else "; the relay was not stopped cleanly"
            logger.info("histories restored: %d, from %s%s", len(self._channels), self._path, how)
            # Messages sent since then are lost, until a broker is back.
            self._feed.restore(saved.outages, saved.at)

    async def run(self) -> None:
        """Save what is new, again and again."""
        while True:
            await asyncio.sleep(_PERIOD_S if self.outage.problem is None else _RETRY_S)
            await self.save()

    async def save(self) -> bool:
        """Save all new messages; return whether that succeeded."""
        async with self._lock:
            while True:
                if self._pending is None:
                    self._pending = self._cut()
                if self._pending is None:
                    return True
                batch = self._pending
                try:
                    assert self._file is not None
                    with self.writing:
                        await self._in_thread(self._file.write, batch)
                except (sqlite3.Error, OSError, UnicodeDecodeError) as error:
                    self.failures += 1
                    self.outage.failed(f"cannot write {self._path}: {error}")
                    return False
                self.outage.recovered(f"writing {self._path} again")
                self._pending = None
                self.saved_bytes += sum(len(chunk.frames) for chunk in batch.chunks)

    def open_files(self) -> Sequence[OpenFile]:
        """Return the history file."""
        return () if self._file is None else (self._file.opened,)

    async def close(self) -> None:
        """Save the rest and close the file."""
        clean = await self.save() if self._file is not None else False
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(sqlite3.Error):
                await self._in_thread(file.close, self._time() if clean else None)
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    async def _in_thread(self, function: Callable[..., _T], *args: Any) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    def _open(self) -> Saved:
        try:
            try:
                return self._load()
            except DamagedFileError as damage:
                aside = set_aside(self._path)
                logger.error(
                    "history file %s is damaged (%s): set aside as %s, starting a new one",
                    self._path,
                    damage,
                    aside,
                )
                return self._load()
        except ForeignFileError as problem:
            raise SettingError(
                _KEY,
                f"{self._path} is not a history file of this daemon: {problem}; choose another",
            ) from None
        except sqlite3.Error as error:
            raise MonitorError(
                f"cannot use relay.history_file {self._path}: {error}{owner_remark(self._path)}"
            ) from None
        except OSError as error:
            if error.errno in _DISK_ERRNO:
                raise MonitorError(
                    f"cannot use relay.history_file {self._path}: {error.strerror}"
                ) from None
            raise SettingError(
                _KEY, f"cannot use {self._path}: {error.strerror}{owner_remark(self._path)}"
            ) from None

    def _load(self) -> Saved:
        file = HistoryFile(self._path)
        try:
            saved = file.load()
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                file.close(None)
            raise
        self._file = file
        return saved

    def _cut(self) -> SaveBatch | None:
        """Return the next batch of new messages, or None."""
        channels = self._channels
        unsaved = channels.unsaved
        assert unsaved is not None
        if not unsaved and not channels.forgotten and not self._feed.unsaved:
            return None
        batch = SaveBatch(self._time(), json.dumps(list(self._feed.outages)))
        self._feed.unsaved = False
        batch.forgotten = channels.forgotten[:_BATCH_CHANNELS]
        del channels.forgotten[:_BATCH_CHANNELS]
        now, room = self._clock(), _BATCH_BYTES
        for channel in list(unsaved)[:_BATCH_CHANNELS]:
            if room <= 0:
                break
            if not channel.key:
                channel.key, self._next_key = self._next_key, self._next_key + 1
            start = max(channel.saved, channel.first)
            if start < channel.end:
                frames, sizes, times = channel.cut(start, room)
                batch.chunks.append(
                    ChunkRow(channel.key, start, frames, sizes.tobytes(), times.tobytes())
                )
                room -= len(frames)
                channel.saved = start + len(sizes)
            complete = channel.saved == channel.end or not len(channel)
            if complete:
                del unsaved[channel]
            batch.channels.append(self._row(channel, now, batch.at, complete=complete))
        return batch

    def _row(self, channel: Channel, now: float, at: float, *, complete: bool) -> ChannelRow:
        since = self._channels.last_message_at(channel)
        return ChannelRow(
            channel.key,
            channel.name,
            channel.epoch,
            json.dumps(channel.ancestors),
            channel.first,
            # An end is saved only together with all messages before it.
            channel.end_kind.value if channel.end_kind is not None and complete else None,
            channel.failed,
            at if since is None else at - (now - since),
        )
