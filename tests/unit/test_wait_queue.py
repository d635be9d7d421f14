"""Those who wait for a slot."""

import asyncio
import random

import pytest

from respan_async._pacing.wait_queue import Waiter, WaitQueue

pytestmark = pytest.mark.virtual


def waiter(since: float | None = None, caller: object = None) -> Waiter:
    """Make one who begins to wait, for the first time or not."""
    return Waiter(asyncio.get_running_loop().create_future(), 0.0, since, caller)


async def test_first_come_first_served() -> None:
    """In the order of joining."""
    line = WaitQueue()
    waiters = [waiter() for _ in range(5)]
    for each in waiters:
        line.join(each)

    assert len(line) == 5
    assert list(line) == waiters
    assert [line.pop() for _ in range(5)] == waiters
    assert len(line) == 0


async def test_who_comes_back_goes_before_all_newcomers_in_the_order_of_the_first_time() -> None:
    """Whenever it comes back."""
    line = WaitQueue()
    new = [waiter() for _ in range(2)]
    back = [waiter(since=float(nth)) for nth in range(5)]
    joined = [*new, *back]
    random.Random(1).shuffle(joined)
    for each in joined:
        line.join(each)

    assert list(line)[:5] == back
    assert [line.pop() for _ in range(5)] == back
    assert {line.pop(), line.pop()} == set(new)


async def test_those_who_began_at_the_same_time_are_served_as_they_come_back() -> None:
    """Also at the very beginning of a clock."""
    line = WaitQueue()
    waiters = [waiter(since=0.0) for _ in range(3)]
    for each in waiters:
        line.join(each)

    assert [line.pop() for _ in range(3)] == waiters


async def test_who_leaves_is_gone_and_may_leave_twice() -> None:
    """From wherever in the line."""
    line = WaitQueue()
    new, back, other = waiter(), waiter(since=1.0), waiter()
    for each in (new, back, other):
        line.join(each)

    for each in (new, back, new, back):
        line.leave(each)

    assert list(line) == [other]


async def test_a_call_is_found_by_its_caller() -> None:
    """In either part of the line."""
    line = WaitQueue()
    first, second = waiter(caller="a"), waiter(since=1.0, caller="b")
    line.join(first)
    line.join(second)

    assert line.find("a") is first
    assert line.find("b") is second
    assert line.find("c") is None
