from typing import Annotated

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.store.cursor import Number, Time, cursor_of, read_cursor

Name = Annotated[str, msgspec.Meta(pattern="^$")]
PLACES = st.tuples(st.floats(0, 253402300800), st.integers(0, 2**63 - 1))


@given(PLACES)
def test_a_cursor_gives_back_the_place_exactly(place: tuple[float, int]) -> None:
    text = cursor_of(*place)
    assert text.isascii()
    assert not set(text) & set("+/=&?#% ")
    assert read_cursor(text, tuple[Time, Number]) == place


@given(st.text())
def test_any_other_text_is_refused(text: str) -> None:
    try:
        place = read_cursor(text, tuple[Time, Number])
    except ValueError as error:
        assert str(error) == "cursor: not one that an answer gave"
    else:
        assert read_cursor(cursor_of(*place), tuple[Time, Number]) == place


@pytest.mark.parametrize("place", [(), (1,), ("x",), (-1,), (2**63,), (1e999,), (None,), (1, 2)])
def test_a_cursor_of_another_list_is_refused(place: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="cursor: not one that an answer gave"):
        read_cursor(cursor_of(*place), tuple[Name])
