"""Runs the command line as a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from tests.servers.daemon import ROOT, run_program

__all__ = ["run", "start"]


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return run_program(*arguments, env={**os.environ, **environ})


def start(*arguments: str, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
