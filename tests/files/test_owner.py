from __future__ import annotations

import os
from pathlib import Path

import pytest

from monitor.files.owner import owner_remark


def remark_as(user: int, path: Path) -> str:
    """Return the remark that a process of another user gets."""
    os.setresuid(user, user, 0)
    try:
        return owner_remark(path)
    finally:
        os.setresuid(0, 0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.parametrize("name", ["spool.db", "spool.db-wal"])
def test_a_file_of_another_user_is_named_with_its_owner(name: str, tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == "root" and folder.name.startswith(("pytest", "popen", "test")):
            folder.chmod(0o755)
    file = tmp_path / name
    file.touch(mode=0o640)
    remark = remark_as(54321, tmp_path / "spool.db")
    assert remark == f" ({name} is owned by root; this is user 54321)"
    os.chown(file, 54321, -1)
    assert not remark_as(54321, tmp_path / "spool.db")


def test_nothing_is_said_of_a_file_of_this_user(tmp_path: Path) -> None:
    (tmp_path / "spool.db").touch()
    assert not owner_remark(tmp_path / "spool.db")
    assert not owner_remark(tmp_path / "missing.db")
