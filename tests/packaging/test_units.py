"""The unit files: the template has the service's settings, and both restart only what helps."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
INSTALL = TREE / "install"


def settings(unit: str) -> list[str]:
    lines = (INSTALL / unit).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_instances_are_run_as_the_service_is() -> None:
    service, template = settings("recodex-monitor.service"), settings("recodex-monitor@.service")
    only_service = [line for line in service if line not in template]
    only_template = [line for line in template if line not in service]
    assert [line.partition("=")[0] for line in only_service] == ["Description", "ExecStart"]
    assert [line.partition("=")[0] for line in only_template] == ["Description", "ExecStart"]


@pytest.mark.integration_test
@pytest.mark.parametrize(
    ("instance", "expected"),
    [
        ("producer", "start-producer config.yml 1"),
        ("producer-12", "start-producer config.yml 12"),
        ("consumer", "start-consumer config.yml"),
        ("consumer-2", "start-consumer config.yml"),
        ("logs", "-c logs.yml"),
        ("logs-2", "-c logs-2.yml"),
    ],
)
def test_an_instances_name_says_what_it_runs(tmp_path: Path, instance: str, expected: str) -> None:
    assert ran(tmp_path, instance) == (0, expected)


@pytest.mark.integration_test
def test_an_instance_prefers_a_config_of_its_own_then_its_kinds(tmp_path: Path) -> None:
    (tmp_path / "producer.yml").touch()
    assert ran(tmp_path, "producer-3") == (0, "start-producer producer.yml 3")
    (tmp_path / "producer-3.yml").touch()
    assert ran(tmp_path, "producer-3") == (0, "start-producer producer-3.yml 3")
    assert ran(tmp_path, "producer-4") == (0, "start-producer producer.yml 4")


@pytest.mark.integration_test
@pytest.mark.parametrize("instance", ["producer-", "producer-0", "consumer-x", "producer-1x"])
def test_an_instance_without_a_sound_number_is_a_config_error(
    tmp_path: Path, instance: str
) -> None:
    status, said = ran(tmp_path, instance)
    assert status == 78
    assert said.startswith(f"recodex-monitor@{instance}: ")


def ran(directory: Path, instance: str) -> tuple[int, str]:
    """Run the instance's script with a program that prints its arguments."""
    program = directory / "program"
    program.write_text('#!/bin/sh\necho "$*"\n')
    program.chmod(0o755)
    done = subprocess.run(
        [INSTALL / "instance", instance],
        env={
            "PATH": "/usr/bin:/bin",
            "RECODEX_MONITOR_CONFIG_DIRECTORY": str(directory),
            "RECODEX_MONITOR_PROGRAM": str(program),
        },
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    return done.returncode, said.strip().replace(f"{directory}/", "")
