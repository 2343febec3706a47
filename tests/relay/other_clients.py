"""Clients and brokers by libraries of other languages, from the sources in ``clients``."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.conftest import missing
from tests.servers.kept import kept

__all__ = ["go", "java", "node", "web_application"]

_SOURCES = Path(__file__).parent / "clients"

Find = Callable[..., str]


def _built(language: str, *commands: Sequence[str]) -> Path:
    """Return a folder with the sources of a language, and what the commands made of them there."""
    sources = [file for file in sorted((_SOURCES / language).iterdir()) if file.is_file()]
    digest = hashlib.sha256(repr(commands).encode())
    for file in sources:
        digest.update(file.name.encode() + file.read_bytes())

    def build(folder: Path) -> None:
        for file in sources:
            shutil.copy(file, folder)
        for command in commands:
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=110, check=False
            )
            if done.returncode != 0:
                said = (done.stdout + done.stderr).strip()[-500:]
                missing(f"clients in {language} could not be built: {said}")

    return kept(f"clients-{language}-{digest.hexdigest()[:16]}", build)


def _npm(find: Find) -> Path:
    npm = find("npm", package="npm")
    bundle = "node_modules/.bin/esbuild progress.jsx --bundle --jsx=automatic --outfile=progress.js"
    return _built(
        "node",
        (npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"),
        (*bundle.split(), '--define:process.env.NODE_ENV="production"'),
    )


def web_application(find: Find) -> Path:
    """Return a folder with a page that shows a job's progress: ``progress.html``."""
    return _npm(find)


def node(find: Find, program: str) -> list[str]:
    """Return the command of ``read`` or ``send``."""
    return [find("node", package="nodejs"), str(_npm(find) / f"{program}.js")]


def java(find: Find, program: str) -> list[str]:
    """Return the command of ``Read`` or ``Send``."""
    jars = "target/dependency/*"
    folder = _built(
        "java",
        (find("mvn", package="maven"), "-q", "-B", "dependency:copy-dependencies"),
        (find("javac", package="default-jdk-headless"), "-cp", jars, "Read.java", "Send.java"),
    )
    java = find("java", package="default-jre-headless")
    return [java, "-Xmx64m", "-cp", f"{folder}:{folder}/{jars}", program]


def go(find: Find, program: str) -> list[str]:
    """Return the command of ``gorilla``, ``coder``, ``net`` or ``send``."""
    folder = _built("go", (find("go", package="golang"), "build", "-o", "clients"))
    return [str(folder / "clients"), program]
