"""How pages are read: blocks, commands, and what a page shows against what is printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.docs.fences import Command, Fence, commands, fences, indented, shows

PAGE = """# Title

```sh
one \\
    --more
cat >file <<'END'
a

END
```

- item

  ```console
  $ two
  out ...
  $ three
  ```

```yaml
# /etc/recodex/monitor/config.yml
api: {}
```
"""

words = st.text(st.characters(codec="ascii", categories=("L", "N", "P")), min_size=1, max_size=8)
lines = st.lists(words, min_size=1, max_size=4).map(" ".join)


def test_blocks_have_their_language_line_and_text() -> None:
    found = list(fences("p", PAGE))
    assert [(fence.language, fence.line) for fence in found] == [
        ("sh", 4),
        ("console", 15),
        ("yaml", 21),
    ]
    assert found[1].text == "$ two\nout ...\n$ three\n"
    assert [fence.file for fence in found] == [None, None, "/etc/recodex/monitor/config.yml"]


def test_a_command_goes_over_its_continued_lines_and_its_here_document() -> None:
    first, second, _ = fences("p", PAGE)
    assert list(commands(first)) == [
        Command("one \\\n    --more", None),
        Command("cat >file <<'END'\na\n\nEND", None),
    ]
    assert list(commands(second)) == [Command("two", "out ..."), Command("three", None)]


def test_a_block_without_an_end_and_output_without_a_command_are_refused() -> None:
    with pytest.raises(ValueError, match="p:2: a block without an end"):
        list(fences("p", "```sh\nx\n"))
    with pytest.raises(ValueError, match="output before a command"):
        list(commands(Fence("p", 1, "console", "out\n")))


def test_code_by_indent_is_found_and_what_belongs_to_a_list_is_not() -> None:
    assert list(indented("text\n\n    code\n    more\n")) == [3]
    assert list(indented("- item\n\n    its paragraph\n")) == []
    assert list(indented("```sh\n\n    inside\n```\n")) == []


@given(st.lists(lines, max_size=5))
def test_what_was_printed_shows_itself_however_it_is_spaced(printed: list[str]) -> None:
    text = "\n".join(printed)
    expected = "\n\n".join(line.replace(" ", "   ") for line in printed)
    assert shows(expected, text)
    assert shows("...", text)


@given(st.lists(lines, min_size=1, max_size=5), lines, st.data())
def test_another_line_anywhere_is_not_what_is_shown(
    printed: list[str], other: str, data: st.DataObject
) -> None:
    where = data.draw(st.integers(0, len(printed) - 1))
    changed = [*printed[:where], printed[where] + "x", *printed[where + 1 :]]
    if "..." not in "".join(printed):
        assert not shows("\n".join(printed), "\n".join(changed))
        assert not shows("\n".join(printed), "\n".join([*printed, other]))


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a ... c", "a b b c", True),
        ("a ... c", "a b b", False),
        ("a\n...\nd", "a\nb\nc\nd\n", True),
        ("a\n...\nd", "a\nd\n", True),
        ("a\n...\nd", "a\nb\nc", False),
        ("up (200) ...", "up (200) in 4 ms", True),
        ("a.c", "abc", False),
    ],
)
def test_an_ellipsis_stands_for_what_varies(expected: str, printed: str, same: bool) -> None:
    assert shows(expected, printed) is same
