"""What a pattern of a rule, a silence or a window applies to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.alerts.matching import fits


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("web-*", "web-1", True),
        ("web-?", "web-12", False),
        ("Web-*", "web-1", False),
        ("web[1]", "web[1]", True),
        ("web[1]", "web1", False),
        ("[a-z]*", "[a-z]!", True),
        ("[!x]", "y", False),
        ("web[*]", "web*", True),
        ("web[*]", "web-1", False),
        ("a[[]b[?]", "a[b?", True),
        ("models/*", "models/line\nbreak", True),
        ("", "x", False),
    ],
)
def test_stars_and_question_marks_are_wildcards_and_brackets_are_brackets(
    pattern: str, text: str, expected: bool
) -> None:
    assert fits(text, pattern) is expected


@given(st.text())
def test_what_is_in_brackets_is_plain(text: str) -> None:
    # As the page makes it.
    pattern = "".join(f"[{each}]" if each in "*?[" else each for each in text)
    assert fits(text, pattern)
    assert not fits(f"{text}x", pattern)
