"""Random tags: the proof that a key comes from one certain attempt."""

import os
import secrets
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from respan_async._calls.name_tags import new_tag


@pytest.fixture
def threads_that_change_often() -> Iterator[None]:
    """Let the interpreter go from one thread to another after a few instructions."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-7)
    yield
    sys.setswitchinterval(interval)


def test_a_tag_is_twelve_characters_of_base_32() -> None:
    """Whatever comes out of the random bytes."""
    tags = [new_tag() for _ in range(1000)]

    assert {len(tag) for tag in tags} == {12}
    assert set("".join(tags)) == set("abcdefghijklmnopqrstuvwxyz234567")


def test_no_tag_is_kept_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be the same in a copy of this process, such as a snapshot of its machine that runs twice."""
    asked: list[int] = []
    drawn = secrets.token_bytes

    def counted(number: int) -> bytes:
        asked.append(number)
        return drawn(number)

    monkeypatch.setattr(secrets, "token_bytes", counted)
    for _ in range(5):
        new_tag()

    assert asked == [12] * 5


@pytest.mark.usefixtures("threads_that_change_often")
def test_no_two_threads_draw_the_same_tag() -> None:
    """Two keys with one tag would each be taken for the other's orphan."""
    with ThreadPoolExecutor(8) as pool:
        drawn = list(pool.map(lambda _: [new_tag() for _ in range(25_000)], range(8)))

    tags = [tag for of_one in drawn for tag in of_one]
    assert len(tags) == len(set(tags)) == 200_000
    assert {len(tag) for tag in tags} == {12}


def test_a_forked_process_draws_tags_of_its_own() -> None:
    """None that the parent draws."""
    new_tag()
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, "".join(new_tag() for _ in range(20)).encode())
        os._exit(0)
    os.waitpid(child, 0)
    drawn = os.read(read, 1000).decode()
    os.close(read)
    os.close(write)

    assert len(drawn) == 240
    assert not {drawn[at : at + 12] for at in range(0, 240, 12)} & {new_tag() for _ in range(300)}
