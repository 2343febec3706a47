"""The wording check finds its phrases in prose, and nowhere else."""

from __future__ import annotations

import pytest

from docs.check_wording import ROOT, WORD_LIST, check, main, rules

WORDING = rules(WORD_LIST.read_text(encoding="utf-8"))

# Joined from single words, which the check takes for names, so that it passes this file.
TOLD = " ".join(["is", "told"])
HAD = " ".join(["to", "be", "had"])
WHO = " ".join(["for", "who"])


def found(name: str, text: str) -> list[tuple[int, str]]:
    return [(finding.line, finding.text) for finding in check(name, text, WORDING)]


@pytest.mark.parametrize(
    "phrase",
    [
        *(TOLD, HAD, WHO, "whoever", "anew", "beside", "forever", TOLD.upper()),
        *(" ".join(words.split("_")) for words in ("for_ever", "lets_go_of", "goes_on", "is_said")),
        *(" ".join(words.split("_")) for words in ("is_none", "is_no_number", "stands_in")),
    ],
)
def test_a_phrase_of_the_list_is_found(phrase: str) -> None:
    assert found("page.md", f"One line.\nThen {phrase} again.\n") == [(2, phrase)]


@pytest.mark.parametrize(
    "text",
    [
        "they can be told apart",
        "if there is none",
        "there is no number",
        "it is no longer used",
        "it stands in for a server",
        "besides, it works",
        "go on to the next page",
        "reset({ anew }) { ... }, anew: from the beginning",
    ],
)
def test_good_english_passes(text: str) -> None:
    assert found("page.md", text) == []


def test_a_phrase_may_go_over_a_line_break_but_not_over_an_empty_line() -> None:
    first, second = TOLD.split()
    assert found("page.md", f"it {first}\n{second} so") == [(1, TOLD)]
    assert found("page.md", f"it {first}\n\n{second} so") == []


def test_code_in_a_page_is_not_read() -> None:
    text = f"`{TOLD}` and ``{HAD}``\n\n```sh\n# {TOLD}\n```\n\n[text](anew.md)\n"
    assert found("page.md", text) == []


def test_generated_parts_of_a_page_are_not_read() -> None:
    text = f"<!-- generated: x -->\n{TOLD}\n<!-- end -->\n{HAD}\n"
    assert found("page.md", text) == [(4, HAD)]


def test_comments_docstrings_and_texts_of_python_are_read_and_names_are_not() -> None:
    text = (
        f'"""It {TOLD}."""\n'
        "anew = beside = {'anew': 1}\n"
        f"# It is here {WHO}\n"
        f'print("a text {HAD} here", f"{{anew}} {TOLD}")\n'
        '"""``anew`` is a key."""\n'
    )
    assert found("module.py", text) == [(1, TOLD), (3, WHO), (4, TOLD), (4, HAD)]


def test_a_phrase_over_two_comments_or_two_pieces_of_a_text_is_found() -> None:
    first, second = TOLD.split()
    assert found("module.py", f"# it {first}\n# {second} so\n") == [(1, TOLD)]
    assert found("module.py", f'x = (\n    "it {first} "\n    "{second} so"\n)\n') == [(2, TOLD)]


def test_comments_and_texts_of_javascript_are_read_and_names_are_not() -> None:
    text = (
        f'/* It {TOLD}. */\nconst anew = {{"beside": 1}}; // {HAD}\n'
        f'say("page {WHO}", \'anew\', "https://anew.example/");\n'
    )
    assert found("page.js", text) == [(1, TOLD), (2, HAD), (3, WHO)]


@pytest.mark.parametrize("name", ["config.yml", "unit.service", "Makefile", "page.toml"])
def test_comments_of_config_files_are_read_and_values_are_not(name: str) -> None:
    assert found(name, f'# It {TOLD}.\nkey: "anew"  # {HAD}\n') == [(1, TOLD), (2, HAD)]


def test_scripts_are_known_by_their_first_line() -> None:
    assert found("tool", f"#!/bin/sh\n# It {TOLD}.\necho anew\n") == [(2, TOLD)]
    assert found("tool", f'#!/usr/bin/python3\nanew = "it {TOLD}"\n') == [(2, TOLD)]
    assert found("image.png", TOLD) == []


def test_the_text_of_manual_pages_and_html_is_read_and_markup_is_not() -> None:
    assert found("program.8", f".Nm anew\nIt {TOLD}.\n") == [(2, TOLD)]
    assert found("page.html", f'<p class="anew">\nIt {TOLD}.</p>\n') == [(2, TOLD)]


def test_a_rule_without_advice_is_refused() -> None:
    with pytest.raises(ValueError, match=r"wording\.txt:2"):
        rules("# a comment\na phrase\n")


def test_the_command_names_file_line_and_advice(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(ROOT / "docs" / "wording.txt")]) == 0
    assert capsys.readouterr().out == ""


def test_the_pages_pass(capsys: pytest.CaptureFixture[str]) -> None:
    # Its table repeats the texts of monitor/relay/codes.py.
    quotes = "docs/reference/close-codes.md"
    main([str(ROOT / "docs"), str(ROOT / "README.md"), str(ROOT / "CHANGELOG.md")])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(quotes)] == []
