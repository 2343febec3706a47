"""``completion bash|zsh|fish``: prints a script that completes the command line in a shell.

It is generated from the commands' own parsers, so that it knows every option.
"""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Callable, Iterator
from importlib import resources
from typing import NamedTuple

__all__ = ["SHELLS", "add_arguments", "run", "script"]

SHELLS = ("bash", "zsh", "fish")
# An id and its description, as the shell's own functions take them.
_JOB_FORMS: dict[str, Callable[[str, str], str]] = {
    "bash": lambda id_, name: f"{id_}  ({name})",
    "zsh": lambda id_, name: f"{id_}:{name}",
    "fish": lambda id_, name: f"{id_}\t{name}",
}
_FISH_JOBS = "-a '(recodex-monitor completion fish --jobs (commandline -cp) 2>/dev/null)'"
# The actions of `job` that take the ids of jobs.
_ON_JOBS = ("show", "start", "stop", "check", "change", "remove")


class _Command(NamedTuple):
    name: str
    help: str
    actions: list[argparse.Action]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")
    parser.add_argument(
        "--jobs",
        metavar="LINE",
        help="print the jobs of the daemon that this command line is about, as the scripts ask for"
        " them; nothing if it does not answer within 2 s",
    )


def run(args: argparse.Namespace) -> int:
    """Print the script, or the jobs."""
    if args.jobs is not None:
        from monitor.commands.completion_jobs import print_jobs

        print_jobs(args.jobs, _JOB_FORMS[args.shell])
    print(script(args.shell), end="")
    return 0


def script(shell: str) -> str:
    """Return the script for one of :data:`SHELLS`."""
    commands = list(_commands())
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](commands)


def _commands() -> Iterator[_Command]:
    from monitor.commands import COMMANDS

    for name, (module, text) in COMMANDS.items():
        parser = argparse.ArgumentParser()
        importlib.import_module(f"monitor.commands.{module}").add_arguments(parser)
        # There is no public API for a parser's arguments; this attribute has been stable for years.
        yield _Command(name, text, list(parser._actions))


def _takes_file(action: argparse.Action) -> bool:
    return "FILE" in str(action.metavar or "") or action.dest == "file"


def _takes_job(action: argparse.Action) -> bool:
    return action.dest == "job" or action.metavar == "ID|FILE"


def _repeats(action: argparse.Action) -> bool:
    return isinstance(action, argparse._AppendAction)


def _values(action: argparse.Action) -> list[str]:
    return [str(choice) for choice in action.choices or ()]


def _bash(commands: list[_Command]) -> str:
    files, jobs, others, values, options = "", [], [], [], []
    for command in commands:
        flags: list[str] = []
        words: list[str] = []
        for action in command.actions:
            if not action.option_strings:
                words += _values(action)
                continue
            flags += action.option_strings
            patterns = "|".join(f"{command.name}:{flag}" for flag in action.option_strings)
            if _takes_file(action) and action.dest != "config":
                files += f"|{patterns}"
            elif _takes_job(action):
                jobs.append(patterns)
            elif choices := " ".join(_values(action)):
                values.append(f'        {patterns}) words="{choices}" ;;')
            elif action.nargs != 0 and action.dest != "config":
                others.append(patterns)
        files_too = any(not each.option_strings and _takes_file(each) for each in command.actions)
        given = f'options="{" ".join(flags)}" words="{" ".join(words)}"'
        options.append(f"            {command.name}) {given} files={'yes' * files_too} ;;")
    return _filled(
        "bash",
        FILES=files,
        ON_JOBS="|".join(f"job:{action}" for action in _ON_JOBS),
        JOBS="|".join(jobs),
        OTHERS="|".join(others),
        VALUES="\n".join(values),
        COMMANDS=" ".join(command.name for command in commands),
        OPTIONS="\n".join(options),
    )


def _zsh(commands: list[_Command]) -> str:
    arms = []
    for command in commands:
        specs = [_zsh_spec(action) for action in command.actions]
        arms.append(f"                {command.name}) _arguments {' '.join(specs)} ;;")
    names = "\n".join(f"        {_zsh_quoted(f'{each.name}:{each.help}')}" for each in commands)
    return _filled("zsh", COMMANDS=names, ARGUMENTS="\n".join(arms), ON_JOBS="|".join(_ON_JOBS))


def _zsh_spec(action: argparse.Action) -> str:
    text = re.sub(r"[\\\[\]:]", r"\\\g<0>", action.help or "")
    what = "_files" if _takes_file(action) else f"({' '.join(_values(action))})"
    if _takes_job(action):
        what = "->job"
    if what == "()":
        what = " "
    if not action.option_strings:
        many = "*" if action.nargs in ("*", argparse.REMAINDER) else ""
        return _zsh_quoted(f"{many}:{action.dest}:{what}")
    value = "" if action.nargs == 0 else f":{action.dest}:{what}"
    # What is given is not offered again, unless it may be repeated.
    once = "*" if _repeats(action) else f"({' '.join(action.option_strings)})"
    return " ".join(_zsh_quoted(f"{once}{flag}[{text}]{value}") for flag in action.option_strings)


def _zsh_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _fish(commands: list[_Command]) -> str:
    names = " ".join(command.name for command in commands)
    lines = [
        "# fish completion for recodex-monitor",
        "complete -c recodex-monitor -f",
        "complete -c recodex-monitor -s c -l config -r -F -d 'the config'",
        f"complete -c recodex-monitor -n 'not __fish_seen_subcommand_from {names}' -l version",
    ]
    for command in commands:
        before = f"complete -c recodex-monitor -n 'not __fish_seen_subcommand_from {names}'"
        lines.append(f"{before} -a {command.name} -d {_fish_quoted(command.help)}")
        # An action such as `list` is offered once, and a file only after it.
        seen = ""
        for action in command.actions:
            given = _fish_options(action)
            here = f"__fish_seen_subcommand_from {command.name}"
            if not action.option_strings and action.choices:
                seen = f"__fish_seen_subcommand_from {' '.join(_values(action))}"
                here += f"; and not {seen}"
            elif not action.option_strings and seen:
                here += f"; and {seen}"
            if _takes_job(action) and not action.option_strings:
                on_jobs = f"{here}; and __fish_seen_subcommand_from {' '.join(_ON_JOBS)}"
                lines.append(f"complete -c recodex-monitor -n '{on_jobs}' {_FISH_JOBS}")
                here += "; and __fish_seen_subcommand_from import"
            if given:
                lines.append(f"complete -c recodex-monitor -n '{here}' {given}")
    return "\n".join(lines) + "\n"


def _fish_options(action: argparse.Action) -> str:
    choices = " ".join(_values(action))
    if not action.option_strings:
        if choices:
            return f"-a '{choices}'"
        return "-F" if _takes_file(action) else ""
    words = [
        f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}"
        for flag in action.option_strings
    ]
    if action.nargs != 0:
        words.append("-r -F" if _takes_file(action) else "-x")
        if choices:
            words.append(f"-a '{choices}'")
        elif _takes_job(action):
            words.append(_FISH_JOBS)
    return " ".join([*words, f"-d {_fish_quoted(action.help or '')}"])


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _filled(shell: str, **texts: str) -> str:
    template = (resources.files("monitor") / f"commands/completion.{shell}").read_text("utf-8")
    for name, text in texts.items():
        template = template.replace(f"@{name}@", text)
    return template
