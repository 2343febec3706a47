"""Whether pages learn of other notifications, on each database."""

from __future__ import annotations

import contextlib

import psycopg2
import pytest

from monitor.store import Connection, DatabaseSettings, Store
from monitor.web.live.new_notifications import NewNotifications
from tests.store.opened import opened

INSERT = (
    "INSERT INTO notification (level, time, sender, message, received_at)"
    " VALUES ('info', 1000, 'a', 'done', 1000)"
)


class Written:
    """Writes notifications as the logs part does, and counts them."""

    def __init__(self, store: Store) -> None:
        self.count = 0
        self.store = store
        self.found = NewNotifications(store, lambda: self.count)

    async def put(self) -> None:
        await self.store.transaction(lambda connection: connection.execute(INSERT))
        self.count += 1


async def test_it_is_told_once_of_what_came_and_of_what_went(store: Store) -> None:
    def purge(connection: Connection) -> None:
        connection.execute("DELETE FROM notification WHERE id = 1")

    written = Written(store)
    found = written.found
    await written.put()
    # A page may have looked before that one came.
    assert await found.changed()
    assert not await found.changed()
    await written.put()
    assert await found.changed()
    assert not await found.changed()
    await store.transaction(purge)
    written.count += 1
    assert await found.changed()
    assert found.message() == {"type": "notifications", "stale": False}


@pytest.mark.integration_test
async def test_one_that_is_committed_after_its_successor_is_told_too(postgres_url: str) -> None:
    async with opened(DatabaseSettings(url=postgres_url)) as store:
        written = Written(store)
        with contextlib.closing(psycopg2.connect(postgres_url)) as slow:
            with slow.cursor() as cursor:
                cursor.execute(f"SET search_path TO website_availability; {INSERT}")
            await written.put()
            await written.found.changed()
            assert not await written.found.changed()
            slow.commit()
        assert await written.found.changed()


@pytest.mark.integration_test
async def test_a_database_that_does_not_answer_makes_what_pages_show_stale(
    postgres_url: str,
) -> None:
    async with opened(DatabaseSettings(url=postgres_url)) as store:
        written = Written(store)
        found = written.found
        await found.changed()
        with contextlib.closing(psycopg2.connect(postgres_url)) as other:
            with other.cursor() as cursor:
                cursor.execute("LOCK TABLE website_availability.notification")
            assert await found.changed()
            assert found.message()["stale"]
        # Pages must load once more, for they could not know.
        assert await found.changed()
        assert not found.message()["stale"]
