"""YAML gives data, or one line with the file and the place, whatever it holds."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import ConfigError
from monitor.files.yaml_nodes import compose, construct, decode, take_apart
from tests.examples import examples
from tests.files.broken import pieces


def read(text: str) -> Any:
    return construct("f", compose("f", text))


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(plain, st.booleans())
def test_what_pyyaml_writes_is_read_back(data: Any, flow: bool) -> None:
    assert read(yaml.safe_dump(data, default_flow_style=flow)) == data


def test_merged_keys_are_as_in_pyyaml() -> None:
    text = (
        "base: &base {a: 1, b: 2}\nother: &other {b: 3, c: 4}\n"
        "one: {<<: *base, b: 9}\nboth: {<<: [*other, *base], d: 5}\n"
        "deep: &deep {<<: *base, e: 6}\ndeeper: {<<: *deep, a: 7}\n"
    )
    assert read(text) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing", None),
        ("a: 2024-13-45", {"a": "2024-13-45"}),
        ("1:30", "1:30"),
        ("010", "010"),
        ("1_000", 1000),
        ("-0x1F", -31),
        ("0b101", 5),
        ("1.5e+3", 1500.0),
        ("-.inf", -math.inf),
        ("=", "="),
        (r'"\ud83d\ude00"', "\U0001f600"),
        ("[<<]", ["<<"]),
        ("[yes, Off, TRUE, ~, 'no']", [True, False, True, None, "no"]),
        ("!!str 12", "12"),
        ("!!float 1", "float"),
        ("{1: a, null: b, 1.5: c}", {1: "a", None: "b", 1.5: "c"}),
    ],
)
def test_values_are_as_in_yaml_1_2(text: str, value: Any) -> None:
    if value == "float":
        assert "!!float" in refusal(text)
    else:
        assert read(text) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a:\n- !!int ''", "f:2: the value after !!int is not of this type"),
        ("!!int 1:30", "f:1: the value after !!int"),
        ("\n!!bool zz", "f:2: the value after !!bool is neither true nor false"),
        ("!!timestamp zz", "f:1: the tag !!timestamp is not supported here"),
        ("!!set {a, b}", "f:1: the tag !!set is not supported here"),
        ("!!python/object:os.system {}", "f:1: the tag !!python/object:os.system is not"),
        ("!!binary zz", "f:1: the tag !!binary"),
        (f"!{'x' * 1000} a", "f:1: the tag"),
        ("[a]: b", "f:1: a key must be plain text"),
        ("{<<: 3}", "f:1: << needs a section, or a list"),
        ("{<<: [{a: 1}, 3]}", "f:1: << needs a section, or a list"),
        ("9" * 5000, "f:1: a number of more than 400 characters"),
        ("0x" + "f" * 5000, "f:1: a number of more than 400 characters"),
        ("&a [*a]", "f:1: not YAML: an alias that contains itself"),
        ("*a", "f:1: not YAML: found undefined alias"),
        ("a: 1\n---\nb: 2", "f:2: not YAML: more than one document"),
        ("- " * 5000 + "a", "f:1: nested deeper than 50"),
        ("? " * 5000 + "a", "f:1: nested deeper than 50"),
        ('"\\UFFFFFFFF"', "f:1: not YAML: "),
        ("a: \x01", "f: not YAML: "),
        ("".join(f"%TAG !a{n}! x\n" for n in range(200)) + "--- a", "f: more than 100 directives"),
    ],
    ids=lambda text: text[:30],
)
def test_what_makes_no_sense_is_one_line(text: str, said: str) -> None:
    found = refusal(text)
    assert found.startswith(said)
    assert len(found) < 200
    assert found.isprintable()


@pytest.mark.parametrize("depth", [51, 5000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}"), ("[[a]: ", "]")])
def test_deep_nesting_is_refused_and_crashes_nothing(
    depth: int, opening: str, closing: str
) -> None:
    # A newer libyaml has a limit of its own.
    for text in (opening * depth, opening * depth + "x" + closing * depth):
        assert re.match("f:1: nested deeper than 50|f:1: .*maximum nesting depth", refusal(text))


def test_depth_is_counted_through_aliases() -> None:
    levels = ["- &a0 [x]"] + [f"- &a{n} [*a{n - 1}]" for n in range(1, 40)]
    assert "nested deeper than 50" not in str(read("\n".join(levels)))
    levels += [f"- &a{n} [*a{n - 1}]" for n in range(40, 60)]
    assert refusal("\n".join(levels)) == "f:50: nested deeper than 50"


@pytest.mark.parametrize(
    ("first", "again"),
    [
        ("[x, x]", "[{}]"),
        ("{a: 1, b: 2}", "{{<<: [{}]}}"),
        ("{a: 1, b: 2}", "{{k: [{}]}}"),
    ],
)
def test_what_multiplies_is_refused_before_it_does(first: str, again: str) -> None:
    lines = [f"- &a0 {first}"]
    lines += [
        f"- &a{number} {again.format(', '.join([f'*a{number - 1}'] * 9))}"
        for number in range(1, 30)
    ]
    spent = time.process_time()
    assert "more than 1000000 values, counting those that aliases repeat" in refusal(
        "\n".join(lines)
    )
    # Done, it would take the age of the universe.
    assert time.process_time() - spent < 60


def test_many_aliases_of_little_are_little() -> None:
    text = "- &a {id: 1}\n" + "- *a\n" * 200_000
    found = read(text)
    assert len(found) == 200_001
    assert all(each is found[0] for each in found)


def test_data_shares_no_text_with_the_nodes() -> None:
    root: Any = compose("f", "key: some text\n")
    [(_, value)] = root.value
    data = construct("f", root)
    assert data == {"key": "some text"}
    assert data["key"] is not value.value


def test_text_is_utf_8_with_or_without_a_mark() -> None:
    assert decode("f", b"\xef\xbb\xbfa: 1") == "a: 1"
    with pytest.raises(ConfigError, match="f:3: not UTF-8 text"):
        decode("f", b"\n\n\xff\xfe")


@settings(max_examples=examples(500))
@given(st.lists(pieces, max_size=40).map("".join) | st.text(max_size=60))
def test_any_text_is_data_or_one_line(text: str) -> None:
    try:
        read(text)
    except ConfigError as error:
        assert str(error).isprintable()


def test_nodes_that_were_taken_apart_hold_nothing() -> None:
    root = compose("f", "a: &a [1, {b: 2}]\nc: *a\n? d\n: [[[[]]]]\n")
    assert isinstance(root, yaml.MappingNode)
    below = [value for _, value in root.value]
    take_apart(root)
    assert not any(node.value for node in (root, *below))
    take_apart(None)
