from __future__ import annotations

import json
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from monitor.logs.actions import Follow, ListRequest, Unfollow, Upload, parse
from monitor.logs.answers import ActionError, ErrorCode, Head, listed, live, stored
from monitor.logs.entries import Entry, Reason, Rejected
from monitor.logs.filters import Cursor, Filter, Kind, Query, folded
from monitor.logs.heads import echo, tokens_in
from monitor.logs.levels import LEVELS
from monitor.store.cursor import cursor_of, read_cursor
from tests.logs.test_entries import json_values

ACTIONS = [
    "uploadLogs",
    "getLogs",
    "uploadNotifications",
    "getNotifications",
    "followLogs",
    "unfollowLogs",
]


def read(message: object, *, max_batch: int = 3) -> Any:
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    return parse(data, max_batch=max_batch)


def refused(message: object) -> ActionError:
    with pytest.raises(ActionError) as caught:
        read(message)
    assert caught.value.message
    assert "\n" not in caught.value.message
    return caught.value


def test_an_upload_of_one_entry_and_of_several() -> None:
    one = {
        "action": "uploadLogs",
        "id": 7,
        "level": "info",
        "time": 1,
        "sender": "a",
        "message": "",
    }
    got = read(one)
    assert isinstance(got, Upload)
    assert (got.kind, got.single, len(got.items), got.head.id) == (Kind.LOGS, True, 1, b"7")
    many = {
        "action": "uploadNotifications",
        "notifications": [{"sender": "b"}, {}],
        "upload_id": "u",
    }
    got = read(many)
    assert isinstance(got, Upload)
    assert (got.kind, got.single, len(got.items)) == (Kind.NOTIFICATIONS, False, 2)
    assert (got.upload_id, got.sender) == ("u", "b")
    assert len(read({"action": "uploadLogs", "logs": []}).items) == 0
    # Further keys are the client's own, and so is an entry that lacks all of its keys.
    assert isinstance(read({**one, "log": 1}), Upload)
    assert isinstance(read({**many, "version": 2}), Upload)
    assert isinstance(read({"action": "uploadLogs", "sender": "a"}), Upload)


def test_a_query_with_all_its_narrowings() -> None:
    cursor = Cursor(5.5, 9)
    got = read(
        {
            "action": "getLogs",
            "timewindow": 10,
            "sender": "a",
            "level": 20,
            "min_level": "debug",
            "contains": "x",
            "limit": 10_000,
            "cursor": cursor_of(*cursor),
        }
    )
    assert isinstance(got, ListRequest)
    assert got.query == Query(Kind.LOGS, Filter("a", "info", "debug", "x"), 10_000, 10.0, cursor)
    assert read({"action": "getNotifications"}).query == Query(Kind.NOTIFICATIONS, Filter(), 1000)


def test_following() -> None:
    got = read({"action": "followLogs", "sender": "a", "min_level": 40})
    assert isinstance(got, Follow)
    assert got.filter == Filter("a", None, "error")
    assert isinstance(read({"action": "unfollowLogs", "id": None}), Unfollow)


@pytest.mark.parametrize(
    ("message", "code", "words"),
    [
        (b"", "bad-request", "empty"),
        (b"{", "bad-request", "JSON"),
        (b"[]", "bad-request", "object"),
        (b"nonsense", "bad-request", "not JSON"),
        (b'"text"', "bad-request", "object"),
        (b"\xff", "bad-request", "not JSON"),
        (b"[" * 200_000, "bad-request", "object"),
        # Python 3.14 follows JSON as deep as the stack is.
        (b'{"a":' * 2_000_000, "bad-request", "deep"),
        (b'{"action": "getLogs", "limit": NaN}', "bad-request", "not JSON"),
        ({}, "bad-request", "action: missing"),
        ({"action": 7}, "bad-request", "action: expected a text, not a whole number"),
        ({"action": "x" * 5000}, "bad-request", "action: longer"),
        ({"action": "dropLogs"}, "unknown-action", "dropLogs"),
        ({"action": "getLogs", "sendr": "a"}, "bad-request", "key sendr; did you mean sender?"),
        ({"action": "getLogs", "limit": 0}, "bad-request", "limit: expected a whole number, at"),
        ({"action": "getLogs", "limit": 10_001}, "bad-request", "limit"),
        ({"action": "getLogs", "limit": 1.5}, "bad-request", "limit"),
        ({"action": "getLogs", "timewindow": 0}, "bad-request", "timewindow"),
        ({"action": "getLogs", "timewindow": -1}, "bad-request", "timewindow"),
        ({"action": "getLogs", "timewindow": "10"}, "bad-request", "timewindow"),
        ({"action": "getLogs", "cursor": "x"}, "bad-request", "cursor"),
        ({"action": "getLogs", "cursor": 3}, "bad-request", "cursor"),
        ({"action": "getLogs", "level": "loud"}, "bad-request", "level: expected one of debug"),
        ({"action": "getLogs", "min_level": 11}, "bad-request", "min_level"),
        ({"action": "getLogs", "contains": "a\0"}, "bad-request", "contains"),
        ({"action": "getLogs", "contains": "a" * 5000}, "bad-request", "contains"),
        ({"action": "getLogs", "sender": "\0"}, "bad-request", "sender"),
        ({"action": "followLogs", "limit": 1}, "bad-request", "limit"),
        ({"action": "unfollowLogs", "sender": "a"}, "bad-request", "sender"),
        ({"action": "uploadLogs", "logs": [{}] * 4}, "too-large", "4 entries"),
        ({"action": "uploadLogs", "logs": {}}, "bad-request", "logs"),
        ({"action": "uploadLogs", "notifications": []}, "bad-request", "in logs"),
        ({"action": "uploadLogs", "logs": [], "message": "x"}, "bad-request", "not both"),
        ({"action": "uploadLogs", "logs": [], "upload_id": ""}, "bad-request", "1 character"),
        ({"action": "uploadLogs", "logs": [], "upload_id": 7}, "bad-request", "upload_id"),
        ({"action": "getLogs", "id": []}, "bad-request", "id"),
        ({"action": "getLogs", "id": "x" * 300}, "bad-request", "id"),
        (b'{"action": "getLogs", "id": "\\ud800"}', "bad-request", "surrogate"),
        ({"action": "uploadLogs", "logs": [], "upload_id": "a\0"}, "bad-request", "upload_id"),
        (b'{"action": "getLogs", "token": 7}', "bad-request", "token"),
    ],
)
def test_what_is_wrong_is_said(message: object, code: str, words: str) -> None:
    error = refused(message)
    assert error.code == code
    assert words in error.message


sound_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
sound_floats = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("items", "times"),
    [
        ("{},", 200_000),
        ("1,", 200_000),
        ('{"message":"' + "\\u00e9" * 1000 + '"},', 400),
        ('{"message":"' + "\\n" * 10_000 + '"},', 101),
    ],
)
def test_a_long_message_that_takes_long_is_refused_before_it_is_decoded(
    items: str, times: int
) -> None:
    begin = '{"id":1,"action":"uploadLogs","logs":['
    dense = f"{begin}{items * times}{{}}]}}".encode()
    assert refused(dense).code is ErrorCode.TOO_LARGE
    assert echo(dense) == Head()
    braces = {"action": "uploadLogs", "logs": [{"message": "{}" * 100 + "x" * 10_000}] * 100}
    assert len(read(braces, max_batch=100).items) == 100


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"token": "a_b-c", "x": 1}', ["a_b-c"]),
        (b'{"token":1,"token":"b"}', ["b"]),
        (b'{"token":"' + b"x" * 201 + b'"}', []),
        (b'{"token":"\xff"}', []),
        (b'"token":"a"' * 20, ["a"] * 8),
        (b"", []),
    ],
)
def test_tokens_are_found_without_decoding(data: bytes, expected: list[str]) -> None:
    assert list(tokens_in(data)) == expected


@given(st.none() | st.booleans() | st.integers(-(2**70), 2**70) | sound_floats | sound_texts)
def test_ids_come_back_as_they_were(value: Any) -> None:
    message = json.dumps({"action": "nothing", "id": value}).encode()
    error = refused(message)
    answer = json.loads(error.answer(echo(message)))
    assert answer["action"] == "nothing"
    assert answer["status"] == "error"
    assert answer["id"] == value
    assert type(answer["id"]) is type(value)


def test_an_answer_without_an_id_has_none() -> None:
    assert "id" not in json.loads(stored(Head("uploadLogs"), 1, []))


def test_the_answers_are_those_of_the_reference() -> None:
    entry = Entry("info", 1612839600.0, "addon-1", "hello")
    assert json.loads(stored(Head("uploadLogs", b"7"), 1, [Rejected(0, Reason.TOO_OLD, "m")])) == {
        "action": "uploadLogs",
        "status": "ok",
        "id": 7,
        "accepted": 1,
        "rejected": [{"index": 0, "reason": "too-old", "message": "m"}],
    }
    assert json.loads(listed(Head("getLogs"), Kind.LOGS, [entry], None)) == {
        "action": "getLogs",
        "status": "ok",
        "logs": [{"level": "info", "time": 1612839600.0, "sender": "addon-1", "message": "hello"}],
        "cursor": None,
    }
    before, after = live([entry])
    assert json.loads(before + b"3" + after) == {
        "action": "log",
        "logs": [{"level": "info", "time": 1612839600.0, "sender": "addon-1", "message": "hello"}],
        "dropped": 3,
    }
    limited = ActionError(ErrorCode.RATE_LIMITED, "slower", retry_after=0.25)
    assert json.loads(limited.answer(Head("uploadLogs")))["error"] == {
        "code": "rate-limited",
        "message": "slower",
        "retry_after": 0.25,
    }


KEYS = ["id", "token", "logs", "notifications", "level", "time", "sender", "message"]
KEYS += ["upload_id", "timewindow", "min_level", "contains", "limit", "cursor", "more"]
messages = st.fixed_dictionaries(
    {"action": st.sampled_from(ACTIONS)}, optional=dict.fromkeys(KEYS, json_values)
)


@given(messages | json_values)
@example({"action": "getLogs", "limit": True})
def test_every_message_is_a_request_or_an_error_that_can_be_answered(message: Any) -> None:
    data = json.dumps(message).encode("utf-8", "surrogatepass")
    try:
        request = parse(data, max_batch=3)
    except ActionError as error:
        answer = json.loads(error.answer(echo(data)))
        assert answer["status"] == "error"
        assert answer["error"]["code"] in set(ErrorCode)
    else:
        assert request.head.action in ACTIONS


@given(st.binary(max_size=80))
def test_every_binary_message_too(data: bytes) -> None:
    with pytest.raises(ActionError):
        parse(data, max_batch=3)
    json.loads(ActionError(ErrorCode.BAD_REQUEST, "m").answer(echo(data)))


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, st.integers(-(2**63), 2**63 - 1))
def test_a_cursor_comes_back_exactly(time: float, number: int) -> None:
    assert read_cursor(cursor_of(time, number), Cursor) == (time, number)


texts = st.text(alphabet="abÄä", max_size=4)


@given(st.text(max_size=20), st.text(max_size=5), st.text(max_size=20))
@example("", "ΟΔΟΣ", "ΕΔΩ")
@example("", "İ", "")
def test_a_part_of_a_text_is_found_in_it_whatever_its_case(
    before: str, part: str, after: str
) -> None:
    whole = before + part + after
    for text in (whole, whole.lower(), whole.casefold()):
        assert folded(part) in folded(text)
    assert folded(part.casefold()) in folded(whole)


def test_texts_that_unicode_calls_equal_without_case_are_folded_to_one() -> None:
    equal: dict[str, set[str]] = {}
    for char in map(chr, range(sys.maxunicode + 1)):
        fold = char.casefold()
        if fold != char:
            equal.setdefault(fold, {fold} if len(fold) == 1 else set()).add(char)
    assert not [chars for chars in equal.values() if len(set(map(folded, chars))) > 1]


log_entries = st.builds(
    Entry, st.sampled_from(LEVELS), st.just(0.0), st.sampled_from(["a", "b"]), texts
)


@given(
    st.lists(log_entries, max_size=8),
    st.sampled_from([None, "a", "c"]),
    st.sampled_from([None, *LEVELS]),
    st.sampled_from([None, *LEVELS]),
    st.none() | texts,
)
def test_a_filter_selects_what_each_of_its_conditions_allows(
    entries: list[Entry],
    sender: str | None,
    level: str | None,
    min_level: str | None,
    contains: str | None,
) -> None:
    filter_ = Filter(sender, level, min_level, contains)
    assert list(filter_.select(entries)) == [
        entry
        for entry in entries
        if (sender is None or entry.sender == sender)
        and (level is None or entry.level == level)
        and (min_level is None or LEVELS.index(entry.level) >= LEVELS.index(min_level))
        and (contains is None or contains.casefold() in entry.message.casefold())
    ]
