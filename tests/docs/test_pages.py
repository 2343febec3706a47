"""What can be known of a page without running it: it loads, it leads on, it names what exists."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from monitor.commands import COMMANDS
from monitor.daemon.config import load
from tests.docs.book import CHECKOUT, DEBIAN, NOT_INSTALLED, ROOT, all_fences, pages, text_of
from tests.docs.fences import Fence, commands, indented
from tests.docs.unrun import NEEDS_A_CLUSTER, NOT_IN_A_CHECKOUT, UNRUN_PAGES, UNRUN_TOOLS

LANGUAGES = {
    *("apache", "caddy", "console", "haproxy", "ini", "js", "json", "mermaid", "nginx", "python"),
    *("sh", "text", "yaml"),
}
FENCES = all_fences()
# Keys at the top of YAML that is not our config; image: the chart's values.
FOREIGN = {"apiVersion", "image", "scrape_configs"}

# Words in backticks that stand for somebody else's things.
FOREIGN_WORDS = {
    *("createrepo_c", "pool_mode", "python3_pip", "sched_setscheduler"),
    # Examples of what a contributor may add.
    *("approved_by", "max_channels", "relay_refused_origins_total"),
    *("proxy_http", "proxy_wstunnel", "mod_proxy_wstunnel", "pg_hba"),
}


# What a contributor may add, and the one program without a file of its name.
EXAMPLES = {
    "monitor/reports/part.py",
    "monitor/reports/settings.py",
    "monitor.reports",
    "tests/reports",
}
EXAMPLES |= {"monitor/probes/checks/finger.py", "tests/probes/test_finger.py", "benchmarks/run"}


def of(*languages: str) -> list[Fence]:
    return [fence for fence in FENCES if fence.language in languages]


def place(fence: Fence) -> str:
    return fence.place


@pytest.mark.parametrize("page", pages())
def test_every_block_is_fenced_and_names_its_language(page: str) -> None:
    assert list(indented(text_of(page))) == []
    unknown = [f.place for f in FENCES if f.page == page and f.language not in LANGUAGES]
    assert unknown == []


@pytest.mark.parametrize("fence", of("json"), ids=place)
def test_json_can_be_read(fence: Fence) -> None:
    try:
        json.loads(fence.text)
    except ValueError:
        for line in fence.text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("fence", of("python"), ids=place)
def test_python_compiles(fence: Fence) -> None:
    compile(fence.text, fence.place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.integration_test
@pytest.mark.parametrize("fence", of("js"), ids=place)
def test_javascript_parses(fence: Fence, program: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "snippet.mjs"
    file.write_text(fence.text)
    node = program("node", package="nodejs")
    done = subprocess.run([node, "--check", file], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("fence", of("yaml"), ids=place)
def test_a_config_is_one_that_the_daemon_takes(
    fence: Fence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = yaml.safe_load(fence.text)
    if isinstance(found, dict) and set(found) & FOREIGN:
        return
    if fence.file is not None and fence.page in DEBIAN:
        return  # checked where it is used, with the files that it names
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    file = tmp_path / "config.yml"
    text = fence.text
    for name in re.findall(r"/etc/recodex/monitor/(\w+\.(?:urls|secret))", text):
        (tmp_path / name).write_text("json://127.0.0.1:9\n")
        text = text.replace(f"/etc/recodex/monitor/{name}", str(tmp_path / name))
    file.write_text(text)
    load(str(file))


@pytest.mark.parametrize("page", pages())
def test_every_link_leads_somewhere(page: str) -> None:
    text = without_code(text_of(page))
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert lost == []


def test_the_index_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#\s]+)\)", text_of("docs/index.md")))
    here = {page.removeprefix("docs/") for page in pages() if page.startswith("docs/")}
    assert here - linked == {"index.md"}


@pytest.mark.parametrize("page", pages())
def test_what_stands_in_backticks_exists(page: str) -> None:
    words = [
        word
        for quoted in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", without_code(text_of(page)))
        for word in [quoted.replace("\\|", "|")]
    ]
    assert [word for word in words if problem(word)] == []


@pytest.mark.parametrize("page", pages())
def test_every_file_and_test_that_is_named_is_there(page: str) -> None:
    named = re.findall(
        r"(?<![\w/.-])((?:tests|benchmarks|packaging|install|monitor|demo)/[\w./@-]*\w)",
        text_of(page),
    )
    lost = [name for name in set(named) - EXAMPLES if not (ROOT / name).exists()]
    assert lost == []


@pytest.mark.integration_test
def test_every_benchmark_that_is_named_is_one() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--list"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip
    named = {
        name for page in pages() for name in re.findall(r"`benchmarks/run ([a-z_]+)", text_of(page))
    }
    assert named
    assert [name for name in named if name not in listed.split()] == []


# What the checks above go by.

# What the name of a channel, and of a metric of the process, begins with.
_FREE = ("student_", "reference_", "process_")
_CODE = {".py", ".sql", ".js", ".yml", ".service", ""}


def without_code(text: str) -> str:
    """Return a page without its blocks, but with as many lines."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.M | re.S)


@cache
def anchors(file: Path) -> frozenset[str]:
    """Return a page's anchors, as code hosts and Sphinx make them of its headings."""
    found = re.findall(r"^#+ (.*)$", without_code(file.read_text(encoding="utf-8")), re.M)
    return frozenset(
        re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-")
        for heading in found
    )


def problem(word: str) -> bool:
    """Tell whether a word in backticks names something that is not there."""
    if target := re.fullmatch(r"make ([a-z-]+).*", word):
        return not re.search(rf"^{target[1]}:", (ROOT / "Makefile").read_text(), re.M)
    if command := re.fullmatch(r"recodex-monitor ([a-z][a-z-]+)( .*)?", word):
        return command[1] not in COMMANDS
    if option := re.fullmatch(r"(--[a-z][a-z-]+)( .*)?", word):
        return option[1] not in options() and option[1] not in source()
    if metric := re.fullmatch(r"recodex_monitor_(\w+)(\{.*\})?", word):
        return metric[1] not in identifiers()
    if re.fullmatch(r"[a-z]+\.[a-z_]+(\.[a-z_]+)*", word):
        section, _, rest = word.partition(".")
        return section in sections() and rest not in source()
    if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", word) and not word.startswith(_FREE):
        return word not in identifiers() and word not in FOREIGN_WORDS
    return False


@cache
def sections() -> frozenset[str]:
    from monitor.daemon.config import Config

    return frozenset(Config.__struct_fields__)


@cache
def options() -> frozenset[str]:
    """Return the options of all commands."""
    found: set[str] = {"--version", "--help", "--config"}
    for module, _ in COMMANDS.values():
        parser = argparse.ArgumentParser()
        importlib.import_module(f"monitor.commands.{module}").add_arguments(parser)
        found.update(option for action in parser._actions for option in action.option_strings)
    return frozenset(found)


@cache
def source() -> str:
    """Return all code of the tree, but for these pages and what reads them."""
    return "\n".join(file.read_text(encoding="utf-8") for file in _code())


@cache
def identifiers() -> frozenset[str]:
    return frozenset(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", source()))


def _code() -> Iterator[Path]:
    own = Path(__file__).parent
    for folder in ("monitor", "tests", "benchmarks", "demo", "packaging", "install"):
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in _CODE and file.is_file() and own not in file.parents:
                yield file
    yield ROOT / "Makefile"


def test_every_command_that_is_shown_has_the_name_and_options_of_one() -> None:
    wrong = []
    for fence in of("sh", "console"):
        for command in commands(fence):
            for name, rest in re.findall(
                r"\brecodex-monitor ([a-z][a-z-]+)\b([^|;&]*)", command.text
            ):
                given = re.findall(r"(?<=\s)(--[a-z-]+)", rest)
                if name in COMMANDS and not set(given) <= options():
                    wrong.append(f"{fence.place}: {command.text}")
    assert wrong == []


def test_every_command_is_run_or_has_a_reason_why_not() -> None:
    silent = []
    used: set[tuple[str, str]] = set()
    for fence in of("sh", "console"):
        if fence.page in {*CHECKOUT, *DEBIAN}:
            continue
        reasons = UNRUN_PAGES.get(fence.page, {})
        for command in commands(fence):
            found = {
                (fence.page, pattern) for pattern in reasons if re.fullmatch(pattern, command.text)
            }
            used |= found
            if not found and not re.fullmatch(UNRUN_TOOLS, command.text, re.S):
                silent.append(f"{fence.place}: {command.text}")
    assert silent == []
    told = {(page, pattern) for page, patterns in UNRUN_PAGES.items() for pattern in patterns}
    assert used == told, "a reason for a command that no page has"


def test_whatever_is_done_instead_of_a_command_is_asked_for_by_a_page() -> None:
    texts = [command.text for fence in of("sh", "console") for command in commands(fence)]
    for pattern in (*NOT_IN_A_CHECKOUT, *NEEDS_A_CLUSTER):
        assert any(re.fullmatch(pattern, text, re.S) for text in texts), pattern


def test_every_page_of_commands_is_there() -> None:
    assert {*CHECKOUT, *DEBIAN, *NOT_INSTALLED, *UNRUN_PAGES} <= set(pages())
