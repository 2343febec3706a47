"""Breaks all parts of the daemon at random, for minutes, and looks whether its promises hold.

    make chaos                     two minutes of faults, embedded and with servers
    make chaos MINUTES=10 SEED=7   as long, with the faults of this seed

It exits with 0 where every invariant holds, else with 1, and says where everything is kept.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import Run
from tests.chaos.stage import Stage, StageError

_INSIDE = "CHAOS_INSIDE"


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults, each variant")
    parser.add_argument("--seed", type=int, help="default: another one each time")
    parser.add_argument(
        "--variant",
        choices=["both", "embedded", "servers"],
        default="both",
        help="one daemon with spool and SQLite, or two on PostgreSQL and Kafka",
    )
    return parser.parse_args()


def go_inside() -> None:
    """Run again in mount and process namespaces of our own, where that is possible.

    Small file systems can then be mounted, and whatever happens, nothing is left behind.
    """
    if os.environ.get(_INSIDE) or os.geteuid() != 0 or shutil.which("unshare") is None:
        return
    wrap = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*wrap, "true"], capture_output=True).returncode != 0:
        return
    command = [*wrap, sys.executable, "-m", "tests.chaos", *sys.argv[1:]]
    os.execvpe(command[0], command, {**os.environ, _INSIDE: "1"})


def run_variant(servers: bool, *, seed: int, minutes: float) -> bool:
    """Run one variant and print its account; return whether all held."""
    name = "servers" if servers else "embedded"
    directory = Path(tempfile.mkdtemp(prefix=f"recodex-monitor-chaos-{name}-"))
    # PostgreSQL's own user passes through.
    directory.chmod(0o755)
    private = bool(os.environ.get(_INSIDE))
    say(f"== {name}: seed {seed}, {minutes:g} minutes of faults")
    if not private:
        say("  without: root and namespaces; disks do not get full")
    held = False
    stage: Stage | None = None
    try:
        stage = Stage(directory, seed=seed, servers=servers, private=private)
        findings = Run(stage, duration_s=minutes * 60, say=say).play()
        for finding in findings:
            for line in finding.lines():
                say(line)
        held = all(finding.holds for finding in findings)
    except StageError as error:
        say(f"  cannot run here: {error}")
    finally:
        if not held and stage is not None:
            keep(stage, directory)
        if stage is not None:
            stage.close()
        if held:
            shutil.rmtree(directory, ignore_errors=True)
        else:
            say(f"  kept: {directory} (seed {seed})")
    return held


def keep(stage: Stage, directory: Path) -> None:
    """Copy the files from file systems that end with this process."""
    for service in stage.services:
        shutil.copytree(
            directory / service.name,
            directory / "kept" / service.name,
            ignore_dangling_symlinks=True,
            ignore=lambda folder, names: [
                n
                for n in names
                if not (Path(folder) / n).is_file() and not (Path(folder) / n).is_dir()
            ],
        )


def main() -> int:
    """Read the command line, run, and return the exit status."""
    arguments = read_arguments()
    go_inside()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    variants = {"both": [False, True], "embedded": [False], "servers": [True]}
    held = [
        run_variant(servers, seed=seed, minutes=arguments.minutes)
        for servers in variants[arguments.variant]
    ]
    say(f"seed {seed}: {'every invariant holds' if all(held) else 'BROKEN'}")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
