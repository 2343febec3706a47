"""The image's recipe and the package that it installs."""

from __future__ import annotations

import re
from pathlib import Path

from monitor.daemon.config import load

PACKAGING = Path(__file__).resolve().parents[2] / "packaging"
CONTAINER = PACKAGING / "container"


def test_it_installs_what_the_package_recommends() -> None:
    control = (PACKAGING / "deb" / "control").read_text()
    recommends = re.search(r"^Recommends:((?:.*\n)(?:[ \t].*\n)*)", control, re.M)
    assert recommends is not None
    wanted = set(re.findall(r"\bpython3-[-\w]+", recommends[1]))
    assert wanted == set(re.findall(r"\bpython3-[-\w]+", (CONTAINER / "Containerfile").read_text()))


def test_its_own_config_is_one_that_the_daemon_takes() -> None:
    config = load(str(CONTAINER / "config.yml")).config
    assert config.relay is not None
    assert config.api is None  # it would need tokens
    assert config.logger.file == "/dev/null"
