"""The completion scripts, in the shells that they are for."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache

import pytest

from monitor.commands import COMMANDS
from tests.conftest import missing
from tests.servers.daemon import run_program

pytestmark = pytest.mark.integration_test

BASH = """\
eval "$1"; shift
COMP_WORDS=(recodex-monitor "$@"); COMP_CWORD=$#
_recodex_monitor
printf '%s\\n' "${COMPREPLY[@]}"
"""


@cache
def script_for(shell: str) -> str:
    done = run_program("completion", shell)
    done.check_returncode()
    return done.stdout


def need(shell: str) -> None:
    if shutil.which(shell) is None:
        missing(f"the shell {shell}")


def completed_by_bash(*words: str) -> set[str]:
    script = script_for("bash")
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", script, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(done.stdout.split("\n")) - {""}


@pytest.mark.parametrize(
    ("words", "some"),
    [
        (["st"], {"status", "start-producer", "start-consumer"}),
        (["-c", "x.yml", "tok"], {"token"}),
        (["job", ""], {"list", "show", "start", "stop"}),
        (["job", "list", "--state", "d"], {"down"}),
        (["token", "create", "me", "--role", ""], {"admin", "reader", "sender"}),
        (["logs", "--fo"], {"--follow"}),
        (["completion", ""], {"bash", "zsh", "fish"}),
        # As bash separates the words.
        (["job", "list", "--state", "=", "d"], {"down"}),
    ],
)
def test_bash_completes_commands_options_and_values(words: list[str], some: set[str]) -> None:
    assert some <= completed_by_bash(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["check-config", "-c"],
        ["probe", "--ca-file"],
        ["job", "import"],
        ["start-producer"],
    ],
)
def test_bash_completes_a_file_where_one_is_expected(words: list[str]) -> None:
    assert completed_by_bash(*words, "/etc/passw") >= {"/etc/passwd"}


@pytest.mark.parametrize("words", [["job", "list", "lis"], ["follow", "--expect", "-"]])
def test_bash_offers_no_second_action_and_no_option_as_a_value(words: list[str]) -> None:
    assert completed_by_bash(*words) == set()


def test_bash_gets_no_function_but_the_completion() -> None:
    done = subprocess.run(
        ["bash", "-c", BASH + "echo; compgen -A function", "bash", script_for("bash"), "st"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.partition("\n\n")[2].split() == ["_recodex_monitor"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_accept_their_scripts(shell: str) -> None:
    need(shell)
    script = script_for(shell)
    done = subprocess.run(
        [str(shutil.which(shell)), "-n"], input=script, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_fish_completes_commands_options_and_values() -> None:
    need("fish")
    script = script_for("fish")
    done = subprocess.run(
        [
            *("fish", "--no-config", "-c"),
            'source; complete -C "recodex-monitor job list --state d";'
            'complete -C "recodex-monitor sta"',
        ],
        input=script,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    names = {line.split("\t")[0] for line in done.stdout.splitlines()}
    assert names == {"down", "status", "start-producer", "start-consumer"}


def test_fish_shows_help_texts_as_they_are() -> None:
    need("fish")
    done = subprocess.run(
        ["fish", "--no-config", "-c", 'source; complete -C "recodex-monitor foll"'],
        input=script_for("fish"),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == f"follow\t{COMMANDS['follow'][1]}\n"


def test_zsh_gets_help_texts_as_they_are() -> None:
    need("zsh")
    # zsh completes only in a terminal; these stand for its own functions.
    stubs = """
        compdef() { :; }
        _arguments() { [[ $1 == -C ]] && state=$want || print -r -- "$*"; }
        _describe() { print -rl -- "${(@P)2}"; }
        eval "$1"
        want=command; _recodex_monitor
        want=arguments words=(play); _recodex_monitor
    """
    done = subprocess.run(
        ["zsh", "-f", "-c", stubs, "zsh", script_for("zsh")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"follow:{COMMANDS['follow'][1]}\n" in done.stdout
    assert "[CURVE\\: the relay's public key, if not in -c FILE]" in done.stdout
