"""Peers without a token, or with one of few rights, as fast as they can: nobody else notices."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.attacked import Attacked
from tests.hostile.attacks import ATTACKS, Attack

pytestmark = pytest.mark.integration_test

MIB = 1024 * 1024
# What one of these attacks held the loop for was 16 s and more. In turns and slices it is measured
# in tests/transport/test_fair.py.
LATE_S = 4.0


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    found = Attacked(tmp_path_factory.mktemp("attacked"))
    yield found
    found.close()


@pytest.mark.parametrize(
    "attack", ATTACKS, ids=[f"{attack.listener}: {attack.name}" for attack in ATTACKS]
)
def test_an_attack_holds_up_nobody(attacked: Attacked, attack: Attack) -> None:
    cost = attacked.suffer(attack, connections=16, seconds=1.5)
    assert attacked.healthy()
    assert cost.lost == 0
    assert cost.late_s < LATE_S
    assert cost.grown_bytes < 100 * MIB
