"""Breaks all parts of the daemon at random, for minutes, and looks whether its promises hold.

    make chaos                     two minutes of faults in each variant
    make chaos MINUTES=10 SEED=7   as long, with the faults of this seed
    make chaos KILLS=1000          runs of two minutes each, in which daemons are only killed, with
                                   the next seed each, until so many were (kill -9)

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
_VARIANTS = ("embedded", "units", "servers")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--minutes", type=float, default=2.0, help="of faults, each variant")
    parser.add_argument(
        "--kills", type=int, default=0, help="repeat it until daemons were killed so often"
    )
    parser.add_argument("--seed", type=int, help="default: another one each time")
    parser.add_argument(
        "--variant",
        choices=["all", *_VARIANTS],
        default="all",
        help="one daemon with spool and SQLite, two that share those, or two on PostgreSQL and"
        " Kafka",
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


def run_variant(name: str, *, seed: int, minutes: float, only_kill: bool) -> tuple[bool, int]:
    """Run one variant and print its account; return whether all held, and how often it killed."""
    directory = Path(tempfile.mkdtemp(prefix=f"recodex-monitor-chaos-{name}-"))
    # PostgreSQL's own user passes through.
    directory.chmod(0o755)
    private = bool(os.environ.get(_INSIDE))
    say(f"== {name}: seed {seed}, {minutes:g} minutes of {'kill -9' if only_kill else 'faults'}")
    if not private:
        say("  without: root and namespaces; disks do not get full")
    held, kills = False, 0
    stage: Stage | None = None
    try:
        stage = Stage(directory, seed=seed, variant=name, private=private)
        run = Run(stage, duration_s=minutes * 60, say=say, only_kill=only_kill)
        findings = run.play()
        kills = run.kills
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
    return held, kills


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
    variants = _VARIANTS if arguments.variant == "all" else [arguments.variant]
    all_held, kills, rounds = True, 0, 0
    while all_held and (not rounds or kills < arguments.kills):
        for variant in variants:
            held, times = run_variant(
                variant,
                seed=seed + rounds,
                minutes=arguments.minutes,
                only_kill=arguments.kills > 0,
            )
            all_held, kills = all_held and held, kills + times
        rounds += 1
        say(f"seed {seed + rounds - 1}: {'every invariant holds' if all_held else 'BROKEN'}")
        say(f"daemons killed with kill -9: {kills} times, with {rounds} seeds")
    return 0 if all_held else 1


if __name__ == "__main__":
    sys.exit(main())
