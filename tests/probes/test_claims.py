from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from monitor.probes.claims import Claims
from tests.servers.daemon import ROOT

# Locks are of a process: another one tells what it is refused.
OTHER = """
import sys
from pathlib import Path
from monitor.probes.claims import Claims
print(Claims(Path(sys.argv[1])).take(map(int, sys.argv[2:])))
"""


def refused_to_another(file: Path, *ids: int) -> str:
    done = subprocess.run(
        [sys.executable, "-c", OTHER, str(file), *map(str, ids)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.strip()


def test_ids_are_claimed_by_one_process_until_it_claims_others_or_ends(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "lock")
    most = 2**63 - 1
    assert claims.take([7, 3, 1, 2, most]) == []
    assert claims.take([7, 3, 1, 2, most]) == []
    assert refused_to_another(claims.file, 4, 5, 6, 8) == "[]"
    assert refused_to_another(claims.file, 3, 4, 9) == "[(3, 3)]"
    assert refused_to_another(claims.file, 7, most) == f"[(7, 7), ({most}, {most})]"
    claims.take([9])
    assert refused_to_another(claims.file, 1, 2, 3, 7) == "[]"
    assert refused_to_another(claims.file, 9) == "[(9, 9)]"
    claims.close()
    assert refused_to_another(claims.file, 9) == "[]"
    assert claims.file.stat().st_size == 0


def test_what_another_has_claimed_is_claimed_by_who_asks_again_after_its_end(
    tmp_path: Path,
) -> None:
    claims = Claims(tmp_path / "lock")
    code = f"{OTHER}\nsys.stdout.flush()\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(claims.file), "3", "5", "6"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout is not None
        assert other.stdout.readline() == "[]\n"
        assert claims.take(range(1, 9)) == [(3, 3), (5, 6)]
        # All that it could have it has.
        assert refused_to_another(claims.file, 1, 8) == "[(1, 1), (8, 8)]"
        other.kill()
    assert claims.take(range(1, 9)) == []
    assert refused_to_another(claims.file, 5) == "[(5, 5)]"
    claims.close()


def test_a_file_that_was_deleted_is_claimed_anew(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "lock")
    claims.take([1])
    claims.file.unlink()
    assert claims.take([1]) == []
    assert refused_to_another(claims.file, 1) == "[(1, 1)]"
    claims.close()


def test_many_ids_with_gaps_are_claimed_as_far_as_makes_sense(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "lock")
    assert claims.take(range(1, 200_000, 2)) == []
    assert refused_to_another(claims.file, 1, 3) == "[(1, 1), (3, 3)]"
    claims.close()


def test_where_no_file_can_be_that_is_an_error_of_the_system(tmp_path: Path) -> None:
    claims = Claims(tmp_path / "missing" / "lock")
    with pytest.raises(FileNotFoundError):
        claims.take([1])
    claims.close()
