"""Which messages are results, and why the others are not."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.aggregation.intake import parse_result
from monitor.messages import RESULT_TYPE, Phases, Result
from tests.aggregation.plain import result

NOW = 1_700_000_000.0


def parsed(value: bytes | dict[str, Any], headers: dict[str, str] | None = None) -> Result | str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return parse_result(data, headers or {}, now=NOW, keep_s=86400.0)


def reason(value: bytes | dict[str, Any], **headers: str) -> str:
    found = parsed(value, headers)
    assert isinstance(found, str)
    assert found.isprintable()
    assert len(found) <= 500
    return found.partition(":")[0]


def test_a_result_with_and_without_cloudevents_attributes_is_taken() -> None:
    assert isinstance(parsed(result(1, NOW)), Result)
    assert isinstance(
        parsed(result(1, NOW), {"ce_type": RESULT_TYPE, "ce_specversion": "1.0"}), Result
    )


@pytest.mark.parametrize("content_type", ["application/cloudevents+json; charset=utf-8"])
@pytest.mark.parametrize("name", ["content-type", "Content-Type"])
def test_a_structured_cloudevent_is_taken_as_a_binary_one(content_type: str, name: str) -> None:
    event = {"specversion": "1.0", "id": "1", "source": "/p", "type": RESULT_TYPE}
    data = result(1, NOW)
    binary = parsed(data)
    headers = {name: content_type}
    assert parsed(event | {"data": data}, headers) == binary
    nulls = dict.fromkeys(("time", "datacontenttype", "dataschema", "subject", "data_base64"))
    assert parsed(event | {"data": data} | nulls, headers) == binary
    assert reason(event | {"data": data, "type": None}, **headers) == "unknown-type"
    encoded = base64.b64encode(json.dumps(data).encode()).decode()
    assert parsed(event | {"data_base64": encoded}, headers) == binary
    assert reason(event | {"data": data, "type": "other"}, **headers) == "unknown-type"
    assert reason(event | {"data": data, "specversion": "2.0"}, **headers) == "unknown-version"
    for broken in (b"{", event, event | {"data_base64": "?"}, event | {"data": 1}, data, b"\xff"):
        assert reason(broken, **headers) == "not-a-result"


def test_an_older_producer_may_lack_optional_fields_and_a_newer_one_add_some() -> None:
    older = {
        key: value
        for key, value in result(1, NOW).items()
        if key in {"job_id", "url", "scheduled_at", "checked_at", "up"}
    }
    taken = parsed(older)
    assert isinstance(taken, Result)
    assert (taken.kind, taken.status, taken.response_time, taken.attempt) == ("http", None, None, 1)
    newer = parsed(result(1, NOW, region="eu", phases={"resolve": 0.5, "quic": 1.0}))
    assert isinstance(newer, Result)
    assert newer.phases.resolve == 0.5


def fields(kind: type) -> tuple[set[str], set[str]]:
    """Return the names of a struct's required and of its optional fields."""
    found = msgspec.structs.fields(kind)
    optional = {field.name for field in found if not field.required}
    return {field.name for field in found} - optional, optional


@given(
    st.sets(st.sampled_from(sorted(fields(Result)[1]))),
    st.sets(st.sampled_from(sorted(fields(Phases)[1]))),
)
def test_null_in_an_optional_field_means_its_default(nulls: set[str], phases: set[str]) -> None:
    given = result(1, NOW)
    without = {key: value for key, value in given.items() if key not in nulls}
    with_nulls = {**given, **dict.fromkeys(nulls)}
    if "phases" not in nulls:
        measured = given["phases"]
        with_nulls["phases"] = {**measured, **dict.fromkeys(phases)}
        without["phases"] = {key: measured[key] for key in measured if key not in phases}
    taken = parsed(with_nulls)
    assert isinstance(taken, Result)
    assert taken == parsed(without)


@pytest.mark.parametrize("name", sorted(fields(Result)[0]))
def test_null_in_a_required_field_is_rejected(name: str) -> None:
    found = parsed({**result(1, NOW), name: None})
    assert isinstance(found, str)
    assert found.startswith("not-a-result: ")
    assert f"$.{name}" in found


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ce_type": RESULT_TYPE + ".v2"}, "unknown-type"),
        ({"ce_type": "dev.cdevents.service.deployed"}, "unknown-type"),
        ({"ce_type": "x\0\ud800\n" + "y" * 9999}, "unknown-type"),
        ({"ce_specversion": "2.0"}, "unknown-version"),
    ],
)
def test_other_types_and_versions_are_rejected_on_purpose(
    headers: dict[str, str], expected: str
) -> None:
    assert reason(result(1, NOW), **headers) == expected


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{",
        b"[" * 100_000,
        result(0, NOW),
        result(2**63, NOW),
        result(1, -1.0),
        result(1, 1e300),
        result(1, NOW, response_time=-0.5),
        result(1, NOW, response_time="fast"),
        result(1, NOW, up=1),
        result(1, NOW, attempt=2**31),
        result(1, NOW, status=1000),
        {"job_id": 1},
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_result_is_rejected(value: bytes | dict[str, Any]) -> None:
    assert reason(value) == "not-a-result"


@pytest.mark.parametrize("text", ["\0", "a\ud800b"])
def test_text_that_no_database_stores_is_rejected(text: str) -> None:
    assert reason(result(1, NOW, error=text)) in {"bad-text", "not-a-result"}
    assert reason(result(1, NOW, url=text)) in {"bad-text", "not-a-result"}


def test_too_old_and_from_the_future() -> None:
    assert isinstance(parsed(result(1, NOW - 86400)), Result)
    assert reason(result(1, NOW - 86400.001)) == "too-old"
    assert isinstance(parsed(result(1, NOW + 86400)), Result)
    assert reason(result(1, NOW + 86400.001)) == "in-future"


@given(st.binary(max_size=200))
def test_no_bytes_raise(value: bytes) -> None:
    parsed(value)


@given(
    st.dictionaries(
        st.sampled_from(sorted(result(1, NOW))),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none()),
    )
)
def test_no_value_of_any_field_raises_or_slips_through(changes: dict[str, Any]) -> None:
    found = parsed({**result(1, NOW), **changes})
    if isinstance(found, Result):
        assert "\0" not in f"{found.url}{found.kind}{found.error}"
        assert found.status is None or 0 <= found.status < 1000
