"""The manual pages name every key and command that the program has, and are sound mdoc."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from monitor import errors
from monitor.commands import COMMANDS
from monitor.daemon.config import Config, load
from monitor.settings import is_marked
from tests.docs.book import CHECKOUT, DEBIAN, all_fences
from tests.docs.fences import commands

TREE = Path(__file__).resolve().parents[2]
PAGES = TREE / "packaging" / "man"


@pytest.fixture(scope="module")
def config_page() -> list[str]:
    done = subprocess.run(
        [PAGES / "config-page"], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()


def keys_of(
    kind: msgspec.inspect.Type, path: str = "", *, reload: bool = False
) -> Iterator[tuple[str, bool]]:
    """Yield every key of the config as ``relay.tls.key``, and whether a reload takes it."""
    if isinstance(kind, msgspec.inspect.StructType):
        if kind.tag_field is not None:
            yield f"{path}.{kind.tag_field}", reload
        for field in kind.fields:
            name = f"{path}.{field.encode_name}" if path else field.encode_name
            marked = reload or is_marked(field.type, "reload")
            yield name, marked
            yield from keys_of(field.type, name, reload=marked)
    elif isinstance(kind, msgspec.inspect.UnionType):
        for option in kind.types:
            yield from keys_of(option, path, reload=reload)
    elif isinstance(kind, msgspec.inspect.Metadata):
        yield from keys_of(kind.type, path, reload=reload)
    elif isinstance(kind, (msgspec.inspect.ListType, msgspec.inspect.VarTupleType)):
        yield from keys_of(kind.item_type, path, reload=reload)


def described(page: list[str]) -> dict[str, list[str]]:
    """Return each key of the page with its description."""
    found: dict[str, list[str]] = {}
    path: list[str] = []
    section = ""
    for number, line in enumerate(page):
        if line.startswith(".Sh "):
            section = line[4:].lower()
            path = [] if section == "addresses" else [section]
        elif line.startswith(".Bl "):
            path.append("")
        elif line == ".El":
            path.pop()
        elif (item := re.match(r"\.It Ic (\S+) : ", line)) is not None and path:
            path[-1] = item[1]
            rest = page[number + 1 :]
            ends = (at for at, text in enumerate(rest) if text.startswith((".It", ".Bl", ".El")))
            found[".".join(path)] = rest[: next(ends)]
    return found


@pytest.mark.integration_test
def test_every_key_is_described_with_what_applies_it_and_no_other(config_page: list[str]) -> None:
    keys = dict(keys_of(msgspec.inspect.type_info(Config)))
    sections = {key for key in keys if "." not in key} - {"websocket_uri", "zeromq_uri"}
    found = described(config_page)
    assert set(found) == keys.keys() - sections
    assert {key for key, text in found.items() if "(restart)" not in text} == {
        key for key, reload in keys.items() if reload
    }


@pytest.mark.integration_test
def test_every_key_says_what_it_is_for_beside_its_default(config_page: list[str]) -> None:
    # A comment above the field in its settings.py is what it takes.
    silent = [
        key
        for key, text in described(config_page).items()
        if not text or text[0].startswith(("Default: ", "(restart)"))
    ]
    assert silent == []


def test_every_command_is_in_the_programs_page() -> None:
    page = (PAGES / "recodex-monitor.8").read_text()
    assert [name for name in COMMANDS if f".It Cm {name}" not in page] == []


@pytest.mark.integration_test
@pytest.mark.parametrize("page", ["recodex-monitor.8", "recodex-monitor.yml.5"])
def test_the_page_is_sound(
    program: Callable[..., str], config_page: list[str], tmp_path: Path, page: str
) -> None:
    file = tmp_path / page
    handwritten = PAGES / page
    text = handwritten.read_text() if handwritten.exists() else "\n".join(config_page) + "\n"
    file.write_text(text.replace("@DATE@", "November 14, 2023"))
    mandoc = program("mandoc", package="mandoc")
    lint = subprocess.run(
        [mandoc, "-T", "lint", "-W", "warning", file], capture_output=True, text=True
    )
    assert lint.stdout == ""
    groff = subprocess.run(
        [program("man", package="man-db"), "--warnings", "--local-file", file],
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MANPAGER": "cat"},
        capture_output=True,
        text=True,
    )
    assert groff.stderr == ""


def test_every_command_of_the_examples_is_one_that_the_documents_have_run() -> None:
    page = (PAGES / "recodex-monitor.8").read_text().replace("\\-", "-")
    examples = re.findall(r"^\.Dl (.*)$", page, re.M)
    run = {
        command.text
        for fence in all_fences()
        if fence.page in {*CHECKOUT, *DEBIAN} and fence.language in {"sh", "console"}
        for command in commands(fence)
    }
    assert examples
    assert [example for example in examples if example not in run] == []


def test_every_config_of_the_examples_is_one_that_the_daemon_takes(tmp_path: Path) -> None:
    _, _, examples = (PAGES / "recodex-monitor.yml.5.tail").read_text().partition(".Sh EXAMPLES")
    found = re.findall(r"^\.Bd .*\n((?:.*\n)*?)\.Ed$", examples, re.M)
    assert len(found) == 3
    for number, text in enumerate(found):
        file = tmp_path / f"{number}.yml"
        file.write_text(text)
        load(str(file))


def test_the_exit_statuses_are_those_of_the_errors() -> None:
    page = (PAGES / "recodex-monitor.8").read_text()
    listed = re.search(r"\.Sh EXIT STATUS\n(.*?)\.El", page, re.S)
    assert listed
    statuses = {int(status) for status in re.findall(r"^\.It (\d+)$", listed[1], re.M)}
    kinds = {kind.exit_status for kind in vars(errors).values() if hasattr(kind, "exit_status")}
    assert statuses == kinds | {0}
