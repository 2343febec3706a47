"""A control group of its own for a process tree, as a booted machine needs.

systemd-nspawn keeps the machine in a group below the one it is started in, always under
the same name: two machines started from one group share it, and the systemd of each takes
the other's services for its own, stops them and removes their groups.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["enter_and_run", "make_groups", "remove_groups"]

# $1: the groups, a line each; the rest: the command.
_ENTER = """
while read -r group; do echo $$ >"$group/cgroup.procs" || exit; done <<<"$1"
shift
exec "$@"
"""


def make_groups(name: str) -> tuple[Path, ...]:
    """Make a group below the caller's own in each hierarchy that systemd uses."""
    own = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        own[controllers] = path.lstrip("/")
    groups = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options = line.split(" ")[:4]
        if kind == "cgroup2" and "" in own:
            groups.append(Path(where) / own[""] / name)
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            groups.append(Path(where) / own["name=systemd"] / name)
    for group in groups:
        group.mkdir(exist_ok=True)
    return tuple(groups)


def enter_and_run(groups: tuple[Path, ...], *command: str) -> tuple[str, ...]:
    """Return what runs a command in the groups."""
    return ("bash", "-c", _ENTER, "bash", "\n".join(map(str, groups)), *command)


def remove_groups(groups: tuple[Path, ...]) -> None:
    """Remove the groups and all below them; one that still has processes stays."""
    for group in groups:
        for directory, _, _ in os.walk(group, topdown=False):
            with suppress(OSError):
                Path(directory).rmdir()
