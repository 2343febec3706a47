"""Text in databases whose encoding lacks some of its characters."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.store import DatabaseSettings, JsonText, Store
from monitor.store.escapes import Escapes
from tests.servers.postgres import PostgresServer
from tests.store.opened import opened

TEXTS = ["síť neběží", "→ 漢 😀", r"\U00006F22", r"\\U00006F22 漢\U", "\\", "a\\n\n\t漢", "¥‾−～∥—"]
_ANY = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(_ANY | st.from_regex(r"\\{0,3}U[0-9A-F]{8}|漢"), st.sampled_from(["LATIN1", "EUC_JP"]))
@example("\\U0000005CU00006F22", "LATIN1")
@example("\\U0000D800\\UFFFFFFFF\\U00000041", "LATIN1")
def test_what_is_stored_is_read_and_has_no_character_that_is_lacking(
    text: str, encoding: str
) -> None:
    escapes = Escapes(encoding)
    stored = escapes.stored(text)
    assert escapes.read(stored) == text
    stored.encode("latin-1")
    in_json = escapes.stored(json.dumps(text, ensure_ascii=False), doubled=True)
    assert json.loads(in_json) == stored
    assert json.loads(escapes.read(in_json, doubled=True)) == text


async def _inserted(store: Store, text: str) -> tuple[object, ...]:
    read = (
        "INSERT INTO notification (level, time, sender, message, received_at)"
        " VALUES ('info', 1, 'a', %s, 1) RETURNING message, %s::jsonb, %s::bytea"
    )
    as_json = JsonText(json.dumps([text], ensure_ascii=False))
    ((message, found, raw),) = await store.transaction(
        lambda c: c.query(read, (text, as_json, b"\\\xff"))
    )
    assert bytes(raw) == b"\\\xff"
    assert (text,) in await store.read(
        lambda c: c.query("SELECT message FROM notification WHERE message = ANY(%s)", ([text],))
    )
    return message, *json.loads(found)


@pytest.mark.integration_test
@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1251", "EUC_JP", "SQL_ASCII"])
async def test_every_text_comes_back_from_a_database_that_is_not_in_utf_8(
    encoding: str, postgres_server: PostgresServer
) -> None:
    name = f"{postgres_server.create_database()}_{encoding.lower()}"
    postgres_server.execute(f"CREATE DATABASE {name} ENCODING {encoding} TEMPLATE template0")
    async with opened(DatabaseSettings(url=postgres_server.url(name))) as store:
        for text in TEXTS:
            assert await _inserted(store, text) == (text, text)
