from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.logs.entries import Entry, Reason, Rejected, Rules, validate
from monitor.logs.levels import LEVEL_NUMBERS, LEVELS, level_name, levels_from
from monitor.logs.times import seconds_of

NOW = 1_612_839_600.0
RULES = Rules(oldest=NOW - 60, newest=NOW + 3600, max_entry_bytes=100)


def entry(**changes: Any) -> dict[str, Any]:
    return {"level": "info", "time": NOW, "sender": "addon-1", "message": "hello"} | changes


def one(given: object, rules: Rules = RULES) -> Entry | Reason:
    data = given if isinstance(given, bytes) else json.dumps(given).encode()
    accepted, rejected = validate([data], rules)
    assert len(accepted) + len(rejected) == 1
    assert "\n" not in "".join(each.message for each in rejected)
    return accepted[0] if accepted else rejected[0].reason


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in entry().items() if name != key}


def test_a_good_entry_is_kept_as_it_is() -> None:
    assert one(entry()) == Entry("info", NOW, "addon-1", "hello")
    assert one(entry(message="", extra={"ignored": [1]})) == Entry("info", NOW, "addon-1", "")
    assert one(entry(time=int(NOW))) == Entry("info", NOW, "addon-1", "hello")


@pytest.mark.parametrize(("name", "number"), LEVEL_NUMBERS.items())
def test_levels_by_number_are_stored_by_name(name: str, number: int) -> None:
    assert (
        one(entry(level=number)) == one(entry(level=name)) == Entry(name, NOW, "addon-1", "hello")
    )


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (entry(level="loud"), Reason.UNKNOWN_LEVEL),
        (entry(level="x" * 1000), Reason.UNKNOWN_LEVEL),
        (entry(level=0), Reason.UNKNOWN_LEVEL),
        (entry(level=15), Reason.UNKNOWN_LEVEL),
        (entry(level=10**30), Reason.UNKNOWN_LEVEL),
        (entry(level=True), Reason.BAD_ENTRY),
        (entry(level=20.0), Reason.BAD_ENTRY),
        (entry(level=None), Reason.BAD_ENTRY),
        (entry(time="now"), Reason.BAD_ENTRY),
        (entry(time=None), Reason.BAD_ENTRY),
        (entry(time=True), Reason.BAD_ENTRY),
        (entry(time=math.nan), Reason.BAD_ENTRY),
        (entry(time=math.inf), Reason.BAD_ENTRY),
        (json.dumps(entry()).replace(str(NOW), "1e999").encode(), Reason.BAD_ENTRY),
        (entry(time=NOW - 60.001), Reason.TOO_OLD),
        (entry(time=-1e300), Reason.TOO_OLD),
        (entry(time=NOW + 3600.001), Reason.IN_FUTURE),
        (entry(time=1e300), Reason.IN_FUTURE),
        (entry(sender=""), Reason.BAD_ENTRY),
        (entry(sender=7), Reason.BAD_ENTRY),
        (entry(sender="x" * 256), Reason.BAD_ENTRY),
        (entry(sender="a\0b"), Reason.BAD_TEXT),
        (entry(message="a\0b"), Reason.BAD_TEXT),
        (entry(message=7), Reason.BAD_ENTRY),
        (entry(message="\ud800"), Reason.BAD_ENTRY),
        (b'{"level":"info","time":1612839600,"sender":"a","message":"\xff"}', Reason.BAD_ENTRY),
        (
            b'{"level":"info","time":1612839600,"sender":"a","message":"\xed\xa0\x80"}',
            Reason.BAD_ENTRY,
        ),
        (entry(message="x" * 101), Reason.ENTRY_TOO_LARGE),
        (entry(message="é" * 51), Reason.ENTRY_TOO_LARGE),
        (without("level"), Reason.BAD_ENTRY),
        (without("time"), Reason.BAD_ENTRY),
        (without("sender"), Reason.BAD_ENTRY),
        (without("message"), Reason.BAD_ENTRY),
        ([], Reason.BAD_ENTRY),
        (b"null", Reason.BAD_ENTRY),
        (b"", Reason.BAD_ENTRY),
        (b"[" * 100_000, Reason.BAD_ENTRY),
        (b'{"x":' * 100_000, Reason.BAD_ENTRY),
    ],
)
def test_each_wrong_entry_has_its_reason(given: object, reason: Reason) -> None:
    assert one(given) == reason


@pytest.mark.parametrize("time", [1e308, -1e308, NOW * 1e12])
def test_a_time_that_is_none_is_refused_in_few_words(time: float) -> None:
    _, (rejected,) = validate([json.dumps(entry(time=time)).encode()], RULES)
    assert len(rejected.message) < 70, rejected.message


@pytest.mark.parametrize("size", [99, 100])
def test_a_message_as_large_as_allowed_is_kept(size: int) -> None:
    assert isinstance(one(entry(message="x" * size)), Entry)
    assert isinstance(one(entry(message="é" * (size // 2))), Entry)


def test_the_edges_of_time_are_kept() -> None:
    assert isinstance(one(entry(time=NOW - 60)), Entry)
    assert isinstance(one(entry(time=NOW + 3600)), Entry)


def test_a_token_fixes_the_sender() -> None:
    fixed = Rules(NOW - 60, NOW + 3600, 100, sender="addon-1")
    assert one(without("sender"), fixed) == Entry("info", NOW, "addon-1", "hello")
    assert one(entry(), fixed) == Entry("info", NOW, "addon-1", "hello")
    assert one(entry(sender="addon-2"), fixed) == Reason.WRONG_SENDER
    assert one(entry(sender=""), fixed) == Reason.WRONG_SENDER


def test_one_bad_entry_does_not_sink_the_batch() -> None:
    items = [json.dumps(each).encode() for each in (entry(), entry(level="x"), entry(message="b"))]
    accepted, rejected = validate(items, RULES)
    assert [each.message for each in accepted] == ["hello", "b"]
    assert [(each.index, each.reason) for each in rejected] == [(1, Reason.UNKNOWN_LEVEL)]
    assert validate(items, RULES, first=10)[1][0].index == 11


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=5,
)
entries = st.builds(
    lambda changes: entry() | changes,
    st.dictionaries(st.sampled_from(["level", "time", "sender", "message", "x"]), json_values),
)


@given(st.lists(entries | json_values, max_size=6))
def test_every_entry_is_accepted_or_rejected_once_whatever_it_is(items: list[Any]) -> None:
    data = [json.dumps(item).encode("utf-8", "surrogatepass") for item in items]
    accepted, rejected = validate(data, RULES)
    assert len(accepted) + len(rejected) == len(items)
    assert [each.index for each in rejected] == sorted({each.index for each in rejected})
    for each in accepted:
        assert each.level in LEVELS
        assert RULES.oldest <= each.time <= RULES.newest
        assert 0 < len(each.sender) <= 255
        assert "\0" not in each.sender + each.message
        each.message.encode()
    for bad in rejected:
        assert isinstance(bad, Rejected)
        assert bad.message


@given(st.binary(max_size=60))
def test_no_bytes_break_the_validation(data: bytes) -> None:
    one(data)


def test_levels() -> None:
    assert level_name("warning") == level_name(30) == "warning"
    assert level_name(31) is None
    assert levels_from("debug") == set(LEVELS)
    assert levels_from("error") == {"error", "critical"}


@pytest.mark.parametrize(
    "time",
    [
        NOW * 1000,
        int(NOW * 1000),
        int(NOW * 1e6),
        f"{NOW:.0f}000000000",
        "1612839600",
        "1612839600000",
        "2021-02-09T03:00:00Z",
        "2021-02-09t03:00:00z",
        "2021-02-09T04:00:00.000+01:00",
        "20210209T030000Z",
        "2021-02-09 03:00:00+00:00",
        "2021-02-09T04:00:00 01:00",
    ],
)
def test_a_time_in_another_unit_or_iso_8601_is_the_same_moment(time: object) -> None:
    assert one(entry(time=time)) == Entry("info", NOW, "addon-1", "hello")


@pytest.mark.parametrize(
    "time",
    [
        "",
        "soon",
        "2021-02-09T03:00:00",
        "2021-02-09",
        "2021-02-09 03:00",
        "nan",
        "inf",
        "9" * 100,
        "2021-13-45T00:00Z",
    ],
)
def test_a_text_that_is_no_moment_is_refused_and_said_why(time: str) -> None:
    _, (rejected,) = validate([json.dumps(entry(time=time)).encode()], RULES)
    assert rejected.reason == Reason.BAD_ENTRY
    assert rejected.message.startswith("time ")
    assert len(rejected.message) < 80


@given(st.floats(0, 1e11, exclude_max=True))
def test_units_are_told_apart_by_their_size(time: float) -> None:
    assert seconds_of(time) == time
    for unit in (1e3, 1e6, 1e9):
        if time * 1000 >= 1e11:
            assert seconds_of(time * unit) == pytest.approx(time)
            assert seconds_of(str(int(time * unit))) == pytest.approx(time)
    assert seconds_of(1e30) == 1e21


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("INFO", "info"),
        ("Warn", "warning"),
        ("fatal", "critical"),
        ("NOTICE", "info"),
        ("trace", "debug"),
        ("err", "error"),
        (" Severe ", "error"),
        ("emerg", "critical"),
    ],
)
def test_levels_of_other_loggers_are_known_in_any_case(given: str, name: str) -> None:
    assert one(entry(level=given)) == Entry(name, NOW, "addon-1", "hello")
