"""The command line, from the commands' own parsers, and the exit statuses."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator

from monitor.commands import COMMANDS
from monitor.errors import MonitorError

__all__ = ["command_sections", "exit_statuses", "man_synopsis"]


def command_sections() -> str:
    """Return a section for each command, in the order of ``--help``."""
    lines = []
    for name, (module_name, text) in COMMANDS.items():
        parser = argparse.ArgumentParser(add_help=False)
        importlib.import_module(f"monitor.commands.{module_name}").add_arguments(parser)
        # There is no public API for a parser's arguments; this attribute has been stable for years.
        actions = list(parser._actions)
        usage = " ".join([f"recodex-monitor {name}", *(_use(action) for action in actions)])
        lines += [f"## {name}", "", f"{text[0].upper()}{text[1:]}.", "", "```text", usage, "```"]
        lines += ["", "| argument | meaning |", "|---|---|"]
        lines += [f"| `{_name(action)}` | {_help(action)} |" for action in actions]
        lines.append("")
    return "\n".join(lines).rstrip()


def man_synopsis() -> str:
    """Return the SYNOPSIS of the manual page in mdoc, with all options of all commands."""
    lines = [".Nm", ".Op Fl c Ar FILE"]
    for name, (module_name, _) in COMMANDS.items():
        parser = argparse.ArgumentParser(add_help=False)
        importlib.import_module(f"monitor.commands.{module_name}").add_arguments(parser)
        lines += [".Nm", f".Cm {name}", *(_mdoc(action) for action in parser._actions)]
    return "\n".join([*lines, ".Nm", ".Fl -version", ""])


def _mdoc(action: argparse.Action) -> str:
    flag = f"Fl {action.option_strings[0][1:]}" if action.option_strings else ""
    if action.choices:
        value = "Cm " + " | ".join(map(str, action.choices))
    elif action.nargs == 0:
        value = ""
    else:
        value = f"Ar {_value(action)}"
    words = " ".join(filter(None, [flag, value]))
    if action.nargs == "*":
        words += " ..."
    needed = action.required and action.nargs not in ("?", "*")
    return f".{words}" if needed else f".Op {words}"


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.metavar is not None:
        return str(action.metavar)
    return "|".join(map(str, action.choices)) if action.choices else action.dest.upper()


def _name(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    return " ".join(filter(None, [names, _value(action)])).replace("|", "\\|")


def _use(action: argparse.Action) -> str:
    value = _value(action)
    if not action.option_strings:
        return {"?": f"[{value}]", "*": f"[{value} ...]"}.get(str(action.nargs), value)
    use = " ".join(filter(None, [action.option_strings[0], value]))
    return use if action.required else f"[{use}]"


def _help(action: argparse.Action) -> str:
    return (action.help or "").replace("|", "\\|")


def exit_statuses() -> str:
    """Return the table of exit statuses and the errors that cause them."""
    lines = ["| status | cause |", "|---|---|"]
    lines.append("| 0 | success, or stopped by a signal |")
    seen: dict[int, list[str]] = {}
    for kind in _kinds(MonitorError):
        said = re.split(r"[.;]| \(|: ", kind.__doc__ or "", maxsplit=1)[0]
        seen.setdefault(kind.exit_status, []).append(f"{said[0].lower()}{said[1:]}")
    seen[1] = [
        *(text for text in seen[1] if not text.startswith("root of all")),
        "any other failure",
    ]
    for status, texts in sorted(seen.items()):
        lines.append(f"| {status} | {'; '.join(texts)} |")
    return "\n".join(lines)


def _kinds(kind: type[MonitorError]) -> Iterator[type[MonitorError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == MonitorError.__module__:
            yield from _kinds(child)
