"""What the store holds, read past the daemons and the network that fails."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.aggregation.plain import TOPIC
from tests.chaos.alert_load import Sent
from tests.chaos.cluster_load import Told

__all__ = ["Tables"]


class Tables:
    """Reads from PostgreSQL, or from the SQLite file; any thread, each call a connection."""

    def __init__(self, url: str | None, file: Path) -> None:
        self._url = url
        self._file = file

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        if self._url is None:
            with contextlib.closing(
                sqlite3.connect(f"file:{self._file}?mode=ro", uri=True, timeout=10)
            ) as connection:
                yield connection
            return
        import psycopg2

        with contextlib.closing(
            psycopg2.connect(
                self._url,
                connect_timeout=2,
                options="-c search_path=website_availability -c statement_timeout=60000",
            )
        ) as connection:
            yield connection

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query; raises if the store is unavailable."""
        with self._connected() as connection, contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def try_query(self, sql: str) -> list[tuple[Any, ...]] | None:
        """Return the rows of a query, or None if the store is unavailable."""
        import psycopg2

        try:
            return self.query(sql)
        except (psycopg2.Error, sqlite3.Error):
            return None

    def told(self) -> dict[str, list[Told]] | None:
        """Return what was published of each deployment, in order, or None without the store."""
        rows = self.try_query("SELECT type, data FROM model_event ORDER BY seq")
        if rows is None:
            return None
        told: dict[str, list[Told]] = {}
        for type_, text in rows:
            data = json.loads(text)
            if data["kind"] != "Deployment":
                continue
            after = next((image.get("after") for image in data["images"]), None)
            told.setdefault(data["name"], []).append(
                (type_.rpartition(".")[2], data["cause"], after and after.partition("@")[0])
            )
        return told

    def event_ids(self) -> list[str]:
        """Return the ids of all model events, in order."""
        return [id_ for (id_,) in self.query("SELECT id FROM model_event ORDER BY seq")]

    def unforwarded(self) -> int | None:
        """Count the model events that are still to be forwarded."""
        rows = self.try_query("SELECT count(*) FROM model_event WHERE forwarded_at IS NULL")
        return None if rows is None else int(rows[0][0])

    def log_texts(self) -> dict[str, Counter[str]]:
        """Return how often each text is stored, for each kind."""
        return {
            kind: Counter(text for (text,) in self.query(f"SELECT message FROM {table}"))
            for kind, table in (("logs", "log_entry"), ("notifications", "notification"))
        }

    def begun(self, *, partitions: int, kinds: int) -> bool:
        """Return whether all results are judged, and all kinds of objects listed, from now on.

        What was published or created before counts as what was there at the first start.
        """
        rows = self.try_query(
            f"SELECT (SELECT count(*) FROM alert_offset WHERE source = '{TOPIC}'),"
            " (SELECT count(*) FROM cluster_scope)"
        )
        return rows == [(partitions, kinds)]

    def alerts_pending(self) -> int | None:
        """Count the incidents that are open or to be looked at, and the messages to be sent."""
        rows = self.try_query(
            "SELECT (SELECT count(*) FROM alert_incident WHERE resolved_at IS NULL"
            " OR look_at IS NOT NULL) + (SELECT count(*) FROM alert_delivery"
            " WHERE next_at IS NOT NULL)"
        )
        return None if rows is None else int(rows[0][0])

    def alerts_sent(self) -> list[Sent]:
        """Return what was to be sent of each incident, a row each; one at least."""
        return [
            Sent(*row)
            for row in self.query(
                "SELECT i.id, i.job_id, i.opened_at, d.receiver, d.event FROM alert_incident i"
                " LEFT JOIN alert_notice n ON n.incident_id = i.id"
                " LEFT JOIN alert_delivery d ON d.id = n.delivery_id"
            )
        ]

    def statuses(self, below: int) -> dict[int, Counter[tuple[int, int]]]:
        """Return how often jobs with a smaller id have a status in one of the daemon's lives."""
        found: dict[int, Counter[tuple[int, int]]] = {}
        for job, url, status, count in self.query(
            "SELECT job_id, url, status, count(*) FROM availability_result"
            f" WHERE job_id < {below} AND status IS NOT NULL GROUP BY job_id, url, status"
        ):
            life = int(url.partition("?")[0].rpartition("/")[2])
            found.setdefault(job, Counter())[life, status] = count
        return found

    def offsets(self) -> dict[int, int] | None:
        """Return up to where each partition is consumed."""
        rows = self.try_query("SELECT partition, next_offset FROM consumed_offset")
        return None if rows is None else dict(rows)
