"""The completion scripts, in the shells that they are for."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.conftest import missing
from tests.servers.daemon import run_program

pytestmark = pytest.mark.integration_test

BASH = """\
eval "$1"; shift
COMP_WORDS=(recodex-monitor "$@"); COMP_CWORD=$#
_recodex_monitor
printf '%s\\n' "${COMPREPLY[@]}"
"""


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
    ],
)
def test_bash_completes_commands_options_and_values(words: list[str], some: set[str]) -> None:
    assert some <= completed_by_bash(*words)


def test_bash_completes_a_file_where_one_is_expected() -> None:
    assert completed_by_bash("check-config", "-c", "/etc/passw") >= {"/etc/passwd"}


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
