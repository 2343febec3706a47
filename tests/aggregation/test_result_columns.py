"""Every field of a result is stored in a column of its name and comes back as it was."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.aggregation import postgres_rows, sqlite_rows
from monitor.aggregation.result_columns import COLUMN_LIST, COLUMN_TYPES, result_from
from monitor.messages import Phases, Result
from monitor.store import Connection, Store
from tests.examples import examples

NOW = 1_700_000_000.0

texts = st.text(st.sampled_from("a\\N\t\n\r\v,\"'{}None☃")) | st.just("\\N") | st.just("None")
times = st.floats(0, 1e9)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bigint": st.integers(1, 2**63 - 1),
    "boolean": st.booleans(),
    "double precision": times,
    "integer": st.integers(1, 999),
    "jsonb": st.builds(Phases, resolve=times, transfer=times),
    "text": texts,
}


@st.composite
def results(draw: st.DrawFn) -> Result:
    fields: dict[str, Any] = {}
    for field in msgspec.structs.fields(Result):
        values = VALUES[COLUMN_TYPES[field.name]]
        fields[field.name] = draw(st.none() | values if field.default is None else values)
    fields["scheduled_at"] = NOW + draw(st.integers(0, 3)) * 86400
    return Result(**fields)


@settings(
    max_examples=examples(20),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(results(), max_size=20, unique_by=lambda made: (made.job_id, made.scheduled_at)))
async def test_what_is_written_is_read(store: Store, made: list[Result]) -> None:
    def write_and_read(connection: Connection) -> list[Result]:
        rows: Any = postgres_rows if connection.dialect == "postgresql" else sqlite_rows
        connection.execute("DELETE FROM availability_result")
        assert rows.insert_results(connection, made, rows.result_rows(made)) == made
        found = connection.query(f"SELECT {COLUMN_LIST} FROM availability_result")
        return [result_from(row) for row in found]

    found = await store.transaction(write_and_read)
    assert sorted(found, key=msgspec.json.encode) == sorted(made, key=msgspec.json.encode)


def test_null_in_a_column_is_the_default_of_the_field() -> None:
    required: dict[str, Any] = {
        "job_id": 1,
        "url": "http://x/",
        "scheduled_at": NOW,
        "checked_at": NOW,
        "up": 1,
    }
    row = [required.get(name) for name in COLUMN_TYPES]
    assert result_from(row) == Result(**{**required, "up": True})
