"""The wording check finds its phrases in prose, and nowhere else."""

from __future__ import annotations

import pytest

from docs.check_wording import ROOT, WORD_LIST, check, main, rules

# Joined from single words, which the check takes for names, so that it passes this file.
TOLD = " ".join(["is", "told"])
A = "".join(["an", "ew"])
CODE = f"``{TOLD}``\n\n```sh\n# {TOLD}\n```\n\n[text]({A}.md)\n"
PYTHON = f'"""It {TOLD}."""\n{A} = {{"{A}": 1}}\n# It {TOLD}\nprint(f"{{{A}}} {TOLD}")\n'


@pytest.mark.parametrize(
    ("name", "text", "lines"),
    [
        ("page.md", f"One line.\nThen {TOLD.upper()} again.\n", [2]),
        ("page.md", "they can be told apart, if there is none; besides, it works", []),
        ("page.md", TOLD.replace(" ", "\n"), [1]),
        ("page.md", TOLD.replace(" ", "\n\n"), []),
        ("page.md", CODE, []),
        ("page.md", f"<!-- generated: x -->\n{TOLD}\n<!-- end -->\n{TOLD}\n", [4]),
        ("module.py", PYTHON, [1, 3, 4]),
        (
            "page.js",
            f'const {A} = {{"beside": 1}}; // {TOLD}\nsay("it {TOLD}", "{A}");\n',
            [1, 2],
        ),
        ("config.yml", f'# It {TOLD}.\nkey: "{A}"\n', [1]),
        ("tool", f"#!/bin/sh\n# It {TOLD}.\necho {A}\n", [2]),
        ("image.png", TOLD, []),
        ("program.8", f".Nm {A}\nIt {TOLD}.\n", [2]),
        ("page.html", f'<p class="{A}">\nIt {TOLD}.</p>\n', [2]),
    ],
)
def test_phrases_are_found_in_prose_alone(name: str, text: str, lines: list[int]) -> None:
    wording = rules(WORD_LIST.read_text(encoding="utf-8"))
    assert [finding.line for finding in check(name, text, wording)] == lines


def test_the_pages_pass(capsys: pytest.CaptureFixture[str]) -> None:
    # Its table repeats the texts of monitor/relay/codes.py.
    quotes = "docs/reference/close-codes.md"
    main([str(ROOT / "docs"), str(ROOT / "README.md"), str(ROOT / "CHANGELOG.md")])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if not line.startswith(quotes)] == []
