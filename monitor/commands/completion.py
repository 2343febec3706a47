"""``completion bash|zsh|fish``: prints a script that completes the command line in a shell.

It is generated from the commands' own parsers, so that it knows every option.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from importlib import resources
from typing import NamedTuple

__all__ = ["SHELLS", "add_arguments", "run", "script"]

SHELLS = ("bash", "zsh", "fish")


class _Command(NamedTuple):
    name: str
    help: str
    actions: list[argparse.Action]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
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


def _values(action: argparse.Action) -> list[str]:
    return [str(choice) for choice in action.choices or ()]


def _bash(commands: list[_Command]) -> str:
    files, values, options = "", [], []
    for command in commands:
        words: list[str] = []
        for action in command.actions:
            if not action.option_strings:
                words += _values(action)
                continue
            words += action.option_strings
            patterns = "|".join(f"{command.name}:{flag}" for flag in action.option_strings)
            if _takes_file(action) and action.dest != "config":
                files += f"|{patterns}"
            elif choices := " ".join(_values(action)):
                values.append(f'        {patterns}) words "{choices}"; return ;;')
        files_too = any(not each.option_strings and _takes_file(each) for each in command.actions)
        reply = "words_or_files" if files_too else "words"
        options.append(f'        {command.name}) {reply} "{" ".join(words)}" ;;')
    return _filled(
        "bash",
        FILES=files,
        VALUES="\n".join(values),
        COMMANDS=" ".join(command.name for command in commands),
        OPTIONS="\n".join(options),
    )


def _zsh(commands: list[_Command]) -> str:
    arms = []
    for command in commands:
        specs = [_zsh_spec(action) for action in command.actions]
        arms.append(f"                {command.name}) _arguments {' '.join(specs)} ;;")
    names = "\n".join(f"        '{command.name}:{_quoted(command.help)}'" for command in commands)
    return _filled("zsh", COMMANDS=names, ARGUMENTS="\n".join(arms))


def _zsh_spec(action: argparse.Action) -> str:
    text = _quoted(action.help or "").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
    what = "_files" if _takes_file(action) else f"({' '.join(_values(action))})"
    if what == "()":
        what = " "
    if not action.option_strings:
        many = "*" if action.nargs in ("*", argparse.REMAINDER) else ""
        return f"'{many}:{action.dest}:{what}'"
    value = "" if action.nargs == 0 else f":{action.dest}:{what}"
    return " ".join(f"'{flag}[{text}]{value}'" for flag in action.option_strings)


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
        lines.append(f"{before} -a {command.name} -d '{_quoted(command.help)}'")
        for action in command.actions:
            given = _fish_options(action)
            if given:
                inside = f"-n '__fish_seen_subcommand_from {command.name}'"
                lines.append(f"complete -c recodex-monitor {inside} {given}")
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
    return " ".join([*words, f"-d '{_quoted(action.help or '')}'"])


def _filled(shell: str, **texts: str) -> str:
    template = (resources.files("monitor") / f"commands/completion.{shell}").read_text("utf-8")
    for name, text in texts.items():
        template = template.replace(f"@{name}@", text)
    return template


def _quoted(text: str) -> str:
    """Return text for single quotes of all three shells."""
    return text.replace("\\", "").replace("'", "")
