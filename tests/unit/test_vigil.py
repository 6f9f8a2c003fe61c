"""Whether a process lives, look by look."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_coded.vigil import Vigil


class Bench:
    """A vigil whose looks come when the test says so."""

    def __init__(self) -> None:
        self.owes = True
        self.excused = False
        self.told: list[str] = []
        self.vigil = Vigil(
            3600.0,
            owes=lambda: self.owes,
            excused=lambda: self.excused,
            ask=lambda: self.told.append("ask"),
            give_up=lambda: self.told.append("give up"),
        )

    def look(self, count: int = 1) -> list[str]:
        """Return what came of some looks."""
        self.told.clear()
        for _ in range(count):
            self.vigil.look()
        return self.told


def in_loop(test: Callable[[Bench], None]) -> None:
    async def run() -> None:
        bench = Bench()
        bench.vigil.begin()
        test(bench)
        bench.vigil.end()

    asyncio.run(run())


def test_what_is_silent_is_asked_and_then_given_up() -> None:
    in_loop(lambda bench: _check(bench.look(2), ["ask", "give up"]))


def _check(got: list[str], expected: list[str]) -> None:
    assert got == expected


def test_an_answer_begins_it_anew() -> None:
    def test(bench: Bench) -> None:
        assert bench.look() == ["ask"]
        bench.vigil.hear()
        assert bench.look() == []
        assert bench.look(2) == ["ask", "give up"]

    in_loop(test)


@pytest.mark.parametrize("owes", [True, False])
def test_who_owes_nothing_or_is_not_listened_to_is_left_alone(owes: bool) -> None:
    def test(bench: Bench) -> None:
        bench.owes, bench.excused = owes, owes
        assert bench.look(5) == []
        bench.owes, bench.excused = True, False
        bench.vigil.begin()
        assert bench.look(2) == ["ask", "give up"]

    in_loop(test)


@given(st.lists(st.sampled_from(["hear", "look", "begin"])))
def test_nobody_is_given_up_who_was_not_asked_a_whole_look_before(steps: list[str]) -> None:
    def test(bench: Bench) -> None:
        heard_since_asked = True
        for step in steps:
            told = bench.look() if step == "look" else []
            if step != "look":
                getattr(bench.vigil, step)()
            if told == ["give up"]:
                assert not heard_since_asked
                return
            heard_since_asked = told != ["ask"] and (heard_since_asked or step == "hear")

    in_loop(test)


def test_it_looks_by_itself_as_long_as_something_is_owed() -> None:
    async def run() -> None:
        given_up = asyncio.Event()
        vigil = Vigil(0.01, lambda: True, lambda: False, lambda: None, given_up.set)
        vigil.begin()
        async with asyncio.timeout(10):
            await given_up.wait()

    asyncio.run(run())
