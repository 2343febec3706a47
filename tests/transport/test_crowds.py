"""Who holds most makes room; a host with many addresses of IPv6 is one holder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.transport.crowds import Crowds, holder


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1:2", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_a_holder_is_a_host_or_a_network_of_ipv6(address: str, expected: str) -> None:
    assert holder(address) == expected


@given(st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["", "a", "b", "c"]))))
def test_the_largest_crowd_is_always_known(changes: list[tuple[int, str]]) -> None:
    crowds: Crowds[int] = Crowds()
    expected: dict[str, dict[int, None]] = {name: {} for name in "abc"}
    for each, name in changes:
        for held in expected.values():
            held.pop(each, None)
        if name:
            expected[name][each] = None
            crowds.add(each, name)
        else:
            crowds.discard(each)
        assert len(crowds) == sum(map(len, expected.values()))
        assert (each in crowds) is bool(name)
        largest = list(crowds.largest())
        assert len(largest) == max(map(len, expected.values()))
        assert not largest or largest in [list(held) for held in expected.values()]
        for name_, held in expected.items():
            assert crowds.count(name_) == len(held)
