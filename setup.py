"""The metadata is in pyproject.toml; here a wheel also gets the manual pages and completions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from setuptools import setup

SHARED = Path("build/share")
COMPLETIONS = {
    "bash": "bash-completion/completions/recodex-monitor",
    "fish": "fish/vendor_completions.d/recodex-monitor.fish",
    "zsh": "zsh/site-functions/_recodex-monitor",
}


def shared_files() -> list[tuple[str, list[str]]]:
    """Make what belongs below share/ of the prefix, where man and the shells look."""
    at = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time())))
    date = time.strftime("%B %d, %Y", at)
    pages = {
        "man/man8/recodex-monitor.8": Path("packaging/man/recodex-monitor.8").read_text(),
        "man/man5/recodex-monitor.yml.5": subprocess.run(
            [sys.executable, "packaging/man/config-page"],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout,
    }
    for name, text in pages.items():
        (SHARED / name).parent.mkdir(parents=True, exist_ok=True)
        (SHARED / name).write_text(text.replace("@DATE@", date))
    for shell, name in COMPLETIONS.items():
        (SHARED / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(f"packaging/completion/recodex-monitor.{shell}", SHARED / name)
    names = [*pages, *COMPLETIONS.values()]
    return [(str(Path("share", name).parent), [str(SHARED / name)]) for name in names]


setup(data_files=shared_files() if "bdist_wheel" in sys.argv else [])
