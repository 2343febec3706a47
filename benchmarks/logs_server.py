"""The log service behind its HTTP server, as the daemon runs them, for benchmarks.logs.

Beyond the daemon it takes commands on stdin: to fill the database faster than by uploads, to
stand still in time so that a window stays where the entries are, and to purge when told.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from monitor.daemon.interpreter import new_event_loop, settle_garbage
from monitor.logs.part import Logs
from monitor.logs.settings import LogsSettings
from monitor.logs.tables import partition_width_s
from monitor.store import Connection, DatabaseSettings, Store, open_store
from monitor.store.partitions import create_partitions
from monitor.tokens import TokenFile
from monitor.web.part import Web
from monitor.web.settings import ApiSettings

_PIECE = 20_000

purging: ContextVar[bool] = ContextVar("purging", default=False)
"""Set in the task that purges, and nowhere else."""


class Commands:
    """What the benchmark may have done."""

    def __init__(self, store: Store, logs: Logs) -> None:
        self._store = store
        self._logs = logs
        self._steps: list[tuple[float, float]] = []
        store.transaction = self._timed(store.transaction)  # type: ignore[method-assign]

    async def do(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do one of them and return the answer."""
        match command.pop("do"):
            case "stand still":
                at = command["at"]
                self._logs.service.now = lambda: at
                return {}
            case "fill":
                if self._store.dialect == "sqlite":
                    await self._fill_sqlite(**command)
                else:
                    await self._store.transaction(lambda c: self._fill(c, **command), timeout=600)
                return {}
            case "purge":
                before, begun = self._logs.purged, time.perf_counter()
                self._steps.clear()
                purging.set(True)
                await self._logs.retain()
                purging.set(False)
                took = time.perf_counter() - begun
                return {
                    "took": took,
                    "purged": self._logs.purged - before,
                    "steps": self._steps,
                }
            case other:
                raise ValueError(other)

    def _timed(self, transaction: Any) -> Any:
        """Have a purge's transactions measured: on SQLite, each holds the one write lock."""

        async def timed(function: Callable[[Connection], Any], **options: Any) -> Any:
            used: list[tuple[float, Connection]] = []

            def run(connection: Connection) -> Any:
                used.append((time.perf_counter(), connection))
                return function(connection)

            result = await transaction(run, **options)
            if purging.get():
                ((begun, connection),) = used
                self._steps.append((begun, connection.took_s))
            return result

        return timed

    async def _fill_sqlite(self, count: int, since: float, until: float, senders: int) -> None:
        # In pieces: a log with all of it would be copied into the file for long afterwards.
        for first in range(0, count, _PIECE):
            await self._store.transaction(
                lambda connection, first=first: connection.execute(  # type: ignore[misc]
                    "WITH RECURSIVE n(n) AS"
                    " (SELECT %s + 1 UNION ALL SELECT n + 1 FROM n WHERE n < %s)"
                    " INSERT INTO log_entry (level, time, sender, message, received_at)"
                    " SELECT CASE n %% 5 WHEN 0 THEN 'debug' WHEN 3 THEN 'warning'"
                    " WHEN 4 THEN 'error' ELSE 'info' END, %s + (%s - %s) * n / %s,"
                    # SQLite's || binds stronger than its * and %.
                    " 'addon-' || (n * 7919 %% %s), 'the valve of line ' || (n %% 97)"
                    " || ' was opened and closed again after ' || (n %% 1013)"
                    " || ' ms, as planned', %s FROM n",
                    (
                        *(first, min(first + _PIECE, count)),
                        *(since, until, since, float(count), senders, until),
                    ),
                ),
                timeout=600,
            )
        await asyncio.sleep(1)  # for the last of it to be copied

    def _fill(
        self, connection: Connection, count: int, since: float, until: float, senders: int
    ) -> None:
        width = partition_width_s(self._logs.service.settings.timewindow)
        create_partitions(connection, "log_entry", since=since, until=until, width_s=width)
        # Indexes are made faster at the end than row by row, and are the same.
        indexes = connection.query(
            "SELECT indexname, indexdef FROM pg_indexes"
            " WHERE schemaname = current_schema() AND tablename = 'log_entry'"
        )
        connection.execute("ALTER TABLE log_entry DROP CONSTRAINT log_entry_pkey")
        for name, _ in indexes:
            connection.execute(f"DROP INDEX IF EXISTS {name}")
        connection.execute(
            "INSERT INTO log_entry (id, level, time, sender, message, received_at)"
            " SELECT -n, (ARRAY['debug', 'info', 'info', 'warning', 'error'])[1 + n %% 5],"
            " %s + (%s - %s) * n / %s, 'addon-' || n::bigint * 7919 %% %s,"
            " 'the valve of line ' || n %% 97 || ' was opened and closed again after '"
            " || n %% 1013 || ' ms, as planned', %s"
            " FROM generate_series(1, %s) AS n",
            (since, until, since, float(count), senders, until, count),
        )
        connection.execute("ALTER TABLE log_entry ADD PRIMARY KEY (time, id)")
        for name, definition in indexes:
            if not name.endswith("_pkey"):
                connection.execute(definition.replace("%", "%%"))


async def serve(given: dict[str, Any]) -> None:
    sys.setswitchinterval(0.0005)
    store = open_store(DatabaseSettings(url=given["url"], file=given["file"]))
    await store.migrate()
    logs = Logs(LogsSettings(**given["logs"]), store, tokens=TokenFile(None))
    web = Web(
        ApiSettings(uri=("127.0.0.1", 0), tokens_file=None),
        tokens=TokenFile(None),
        parts=lambda: [logs],
    )
    await logs.start()
    await web.start()
    tasks = [asyncio.create_task(part.run()) for part in (logs, web)]
    settle_garbage()
    say({"port": web.addresses[0][1]})
    commands = Commands(store, logs)
    while line := await asyncio.to_thread(sys.stdin.readline):
        say(await commands.do(json.loads(line)))
    await asyncio.gather(logs.drain(), web.drain())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await web.close()
    await logs.close()
    await store.close()


def say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(json.loads(sys.argv[1])))
