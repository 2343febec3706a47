"""The chart in packaging/helm, and helm where it is installed or was built."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import missing
from tests.packaging.kustomize import Object
from tests.packaging.workloads import PACKAGING
from tests.servers.kept import cache_directory

__all__ = ["CHART", "EXAMPLES", "OLDEST", "helm", "merged", "template", "values_of"]

CHART = PACKAGING / "helm"
OLDEST = "1.30.0"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))


def helm(*arguments: str | Path, environ: dict[str, str] | None = None, fails: bool = False) -> str:
    """Return what helm prints; with ``fails`` what it complains about."""
    found = [shutil.which("helm"), *sorted(map(str, cache_directory().glob("helm-v*/helm")))]
    programs = [program for program in found if program]
    if not programs:
        missing("no helm is installed, and none was built (tests/build-helm)")
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [programs[0], *map(str, arguments)],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **(environ or {})},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode != 0) is fails, done.stderr
    return done.stderr if fails else done.stdout


def template(*arguments: str | Path, release: str = "recodex-monitor") -> list[Object]:
    """Return the objects that the chart makes in the namespace monitoring."""
    where = ("--namespace=monitoring", f"--kube-version={OLDEST}")
    text = helm("template", release, CHART, *where, *arguments)
    return [found for found in yaml.safe_load_all(text) if found]


def values_of(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


def merged(values: dict[str, Any], others: dict[str, Any]) -> dict[str, Any]:
    """Return values with others over them, as helm merges them."""
    found = json.loads(json.dumps(values))
    for key, value in others.items():
        both = isinstance(value, dict) and isinstance(found.get(key), dict)
        found[key] = merged(found[key], value) if both else value
    return dict(found)
