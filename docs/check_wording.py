"""Checks that prose uses plain, standard English.

``python -m docs.check_wording [PATH ...]`` prints ``FILE:LINE: "found text": advice`` for every
phrase of ``docs/wording.txt``, and exits with 1 if there is one. It reads Markdown, manual pages,
HTML text, and the comments and texts of code. Without PATH it checks all tracked files.
"""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Finding", "Rule", "check", "main", "rules"]

ROOT = Path(__file__).resolve().parents[1]
WORD_LIST = ROOT / "docs" / "wording.txt"


@dataclass(frozen=True, slots=True)
class Rule:
    """A phrase to avoid, and what to write instead."""

    pattern: re.Pattern[str]
    advice: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A phrase in a file; ``line`` counts from 1."""

    line: int
    text: str
    advice: str


def rules(text: str) -> list[Rule]:
    """Parse a word list.

    Raises:
        ValueError: a line is not ``PATTERN => ADVICE``.
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        pattern, arrow, advice = line.partition(" => ")
        if not arrow:
            raise ValueError(f"wording.txt:{number}: expected PATTERN => ADVICE")
        found.append(Rule(_compiled(pattern), advice.strip()))
    return found


def _compiled(pattern: str) -> re.Pattern[str]:
    # A lookbehind has a fixed width, so a space in one stays a space.
    parts = re.split(r"(\(\?<!.*?\))", pattern)
    flexible = [part if part.startswith("(?<!") else part.replace(" ", _GAP) for part in parts]
    return re.compile(rf"\b(?:{''.join(flexible)})\b", re.I)


# Blanks, or one line break: a phrase does not continue after an empty line.
_GAP = r"(?:[ \t]+|[ \t]*\n[ \t]*)"


def check(name: str, text: str, wording: Iterable[Rule]) -> Iterator[Finding]:
    """Yield the phrases in a file's prose, in the order of the lines."""
    prose = _prose_of(name, text)
    if prose is None:
        return
    shown = prose(text)
    found = [
        Finding(shown.count("\n", 0, match.start()) + 1, " ".join(match[0].split()), rule.advice)
        for rule in wording
        for match in rule.pattern.finditer(shown)
    ]
    yield from sorted(found, key=lambda finding: finding.line)


# Each function below returns a text of the same length and lines in which only prose is left.


def _blank(text: str) -> str:
    return re.sub(r"[^\n]", " ", text)


def _without(pattern: str, text: str) -> str:
    return re.sub(pattern, lambda found: _blank(found[0]), text, flags=re.M | re.S)


def _only(pattern: str, text: str) -> str:
    """Keep the group ``prose`` of each match; the first alternative that matches wins."""
    kept = list(_blank(text))
    for found in re.finditer(pattern, text, re.M | re.S):
        if found["prose"] is not None:
            kept[found.start("prose") : found.end("prose")] = found["prose"]
    return _without(_QUOTED, "".join(kept))


# Code in a text: ``name`` or `name`, on one line.
_QUOTED = r"``[^`\n]+``|`[^`\n]+`"


def _markdown(text: str) -> str:
    text = _without(r"^<!-- generated.*?^<!-- end -->", text)
    text = _without(r"^ *```.*?^ *```$", text)
    return _without(r"\]\([^)\n]*\)", _without(r"(`+)[^`]+\1", text))


def _manual(text: str) -> str:
    return _without(r"^[.'][^\n]*|^\.Bd.*?^\.Ed", text)


def _html(text: str) -> str:
    return _without(r"<(script|style)\b.*?</\1>|<(?!!--)[^>]*>", text)


def _hash_comments(text: str) -> str:
    return _only(r"(?:^|(?<=\s))#(?P<prose>[^\n]*)", text)


def _script(text: str) -> str:
    """Keep the comments and strings of JavaScript, or the comments of CSS."""
    strings = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`"
    shown = _only(rf"(?P<prose>/\*.*?\*/|(?<!:)//[^\n]*|{strings})", text)
    shown = _without_names(_without(r"\$\{[^{}]*\}", shown))
    return re.sub(r"[/*\"'`+]", " ", shown)


def _without_names(text: str) -> str:
    """Blank strings without a space: they are names and keys, not prose."""
    return _without(r"\"[^\"\s]*\"|(?<!\w)'[^'\s]*'|`[^`\s]*`", text)


def _python(text: str) -> str:
    kept = [list(_blank(line)) for line in text.splitlines(keepends=True)]
    lines = text.splitlines(keepends=True)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        # Since Python 3.12, f-strings are tokens of their own, split at each field.
        if tokenize.tok_name[token.type] not in {"COMMENT", "STRING", "FSTRING_MIDDLE"}:
            continue
        if token.type == tokenize.STRING and not re.search(r"\s", token.string):
            continue
        (first, start), (last, end) = token.start, token.end
        for number in range(first, last + 1):
            begin = start if number == first else 0
            until = end if number == last else len(lines[number - 1])
            kept[number - 1][begin:until] = lines[number - 1][begin:until]
        if first == last and re.match(r"(?:f|rf|fr)[\"']", token.string, re.I):
            kept[first - 1][start:end] = _without(r"\{[^{}]*\}", token.string)
    shown = _without(_QUOTED, "".join("".join(line) for line in kept))
    return re.sub(r"[#\"]|(?<!\w)'|'(?!\w)", " ", shown)


_BY_SUFFIX: dict[str, Callable[[str], str]] = {
    ".md": _markdown,
    ".py": _python,
    ".js": _script,
    ".mjs": _script,
    ".css": _script,
    ".html": _html,
    ".8": _manual,
    ".head": _manual,
    ".tail": _manual,
    **dict.fromkeys((".yml", ".yaml", ".toml", ".env", ".service", ".spec"), _hash_comments),
}
_BY_NAME = dict.fromkeys(("Makefile", "Containerfile", "rules"), _hash_comments)


def _prose_of(name: str, text: str) -> Callable[[str], str] | None:
    path = Path(name)
    found = _BY_SUFFIX.get(path.suffix) or _BY_NAME.get(path.name)
    if found is None and text.startswith("#!"):
        return _python if "python" in text.partition("\n")[0] else _hash_comments
    return found


def _tracked(paths: list[str]) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *paths],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name]


def main(arguments: list[str] | None = None) -> int:
    """Print the findings; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.check_wording", description=__doc__)
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files and folders of the tree")
    given = parser.parse_args(arguments)
    wording = rules(WORD_LIST.read_text(encoding="utf-8"))
    total = 0
    for file in _tracked([str(Path(path).resolve()) for path in given.paths]):
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        name = str(file.relative_to(ROOT))
        for finding in check(name, text, wording):
            print(f'{name}:{finding.line}: "{finding.text}": {finding.advice}')
            total += 1
    if total:
        print(f"{total} phrases; the list is docs/wording.txt", file=sys.stderr)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
