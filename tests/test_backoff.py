from hypothesis import given
from hypothesis import strategies as st

from monitor.backoff import Backoff

TIMES = st.floats(0.001, 1000)


@given(TIMES, st.floats(1, 1000), st.integers(1, 40))
def test_delays_double_up_to_the_longest_and_are_never_below_half_of_that(
    first_s: float, factor: float, tries: int
) -> None:
    longest_s = first_s * factor
    backoff = Backoff(first_s, longest_s)
    for number in range(tries):
        limit_s = min(first_s * 2**number, longest_s)
        assert limit_s / 2 <= backoff.next_delay() <= limit_s


@given(TIMES, st.integers(0, 40))
def test_after_a_reset_the_first_delay_comes_again(first_s: float, tries: int) -> None:
    backoff = Backoff(first_s, first_s * 1000)
    for _ in range(tries):
        backoff.next_delay()
    backoff.reset()
    assert first_s / 2 <= backoff.next_delay() <= first_s


def test_two_that_failed_at_once_do_not_come_back_at_once() -> None:
    backoffs = [Backoff(1.0, 1.0) for _ in range(100)]
    assert len({backoff.next_delay() for backoff in backoffs}) > 90
