from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import pytest

from monitor.validation import decoding_problem


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    count: Annotated[float, msgspec.Meta(gt=0, lt=5)] = 1


class Data(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=2, max_length=3)] | None = None
    share: Annotated[float, msgspec.Meta(ge=0.5, le=2)] = 1
    kind: Literal["x", "y"] = "x"
    either: str | int = ""
    flag: bool = False
    items: list[Inner] = []
    pair: tuple[int, int] = (1, 2)
    some: Annotated[list[int], msgspec.Meta(max_length=1)] | None = None
    even: Annotated[int, msgspec.Meta(multiple_of=2)] = 2
    nothing: None = None
    named: dict[str, int] = {}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"named": {1: 2}}, "named: expected a text, not a whole number"),
        ({5: 1}, "expected a text"),
        ({"foo - at `$.bar\x1b": 1}, r"'bar\x1b': object contains unknown field foo"),
    ],
)
def test_keys_that_are_wrong_are_said_as_such(data: object, said: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(data, type=Data)
    assert decoding_problem(caught.value, Data) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "expected an object, not a list"),
        ('{"nam": 1}', "unknown key nam; did you mean name?"),
        ('{"\\n\\u001b": 1}', r"unknown key '\n\x1b'; expected one of name, share, kind"),
        ('{"name": "a"}', "name: expected a text of at least 2 characters"),
        ('{"name": "abcd"}', "name: expected a text of at most 3 characters"),
        ('{"name": 5}', "name: expected a text, not a whole number"),
        ('{"share": 0}', "share: expected a number, at least 0.5"),
        ('{"share": 3}', "share: expected a number, at most 2"),
        ('{"share": null}', "share: expected a number, not null"),
        ('{"kind": "z"}', "kind: expected one of x, y"),
        ('{"either": 1.5}', "either: expected a whole number or a text, not a number"),
        ('{"flag": 0}', "flag: expected true or false, not a whole number"),
        ('{"items": {}}', "items: expected a list, not an object"),
        ('{"items": [{}, {"count": 0}]}', "items[1].count: expected a number, more than 0"),
        ('{"items": [{"count": 5}]}', "items[0].count: expected a number, less than 5"),
        ('{"items": [{"cont": 5}]}', "items[0]: unknown key cont"),
        ('{"pair": [1]}', "pair: expected a list of 2 items"),
        ('{"some": [1, 2]}', "some: expected a list of at most 1 item"),
        ('{"even": 1}', "even: expected a whole number that's a multiple of 2"),
        ('{"nothing": 1}', "nothing: expected null, not a whole number"),
        ('{"share": 1e999}', "share: number out of range"),
        ("{", "the JSON ends too early, or an escape is half of a surrogate pair"),
        ("{} x", "not JSON: trailing characters (byte 4)"),
        ("[" * 100_000, "expected an object, not a list"),
        ('{"a":' * 100_000, "unknown key a; expected one of name"),
    ],
)
def test_what_is_wrong_is_said_as_its_sender_speaks(text: str, said: str) -> None:
    with pytest.raises((msgspec.MsgspecError, RecursionError)) as caught:
        msgspec.json.decode(text, type=Data)
    assert decoding_problem(caught.value, Data).startswith(said)
