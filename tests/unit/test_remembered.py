"""What is kept in memory of what was used last."""

from hypothesis import given
from hypothesis import strategies as st

from claude_coded.remembered import SHARE, Remembered

COUNT, SIZE = 4, 4 * SHARE


def kept(remembered: Remembered[int, str]) -> list[int]:
    return [key for key, _ in remembered]


def test_what_was_used_the_longest_ago_makes_room() -> None:
    remembered = Remembered[int, str](len, count=COUNT, size=SIZE)
    for key in range(COUNT):
        remembered.put(key, "x")
    assert remembered.use(0) == "x"
    assert remembered.look(1) == "x"  # which is no use
    remembered.put(9, "x")
    assert kept(remembered) == [2, 3, 0, 9]
    assert remembered.use(1) is None


def test_what_is_too_large_is_not_kept_and_pushes_nothing_out() -> None:
    remembered = Remembered[int, str](len, count=COUNT, size=SIZE)
    remembered.put(1, "x")
    remembered.put(2, "y" * (SIZE // SHARE))
    remembered.put(3, "z" * (SIZE // SHARE + 1))
    assert kept(remembered) == [1, 2]
    remembered.put(1, "x" * SIZE)
    assert kept(remembered) == [2]


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=90))
def test_there_is_never_more_than_there_is_room_for(steps: list[tuple[int, int]]) -> None:
    remembered = Remembered[int, str](len, count=100, size=SIZE)
    for key, size in steps:
        if size:
            remembered.put(key, "x" * size)
        else:
            remembered.drop(key)
        assert sum(len(text) for _, text in remembered) <= SIZE
