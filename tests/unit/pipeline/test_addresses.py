"""The cache of addresses: what it asks for, and what it keeps."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from klaviyo_pg.errors import BadAnswer
from pipeline.addresses import AddressCache

PEOPLE = {"P1": "one@example.com", "P2": "two@example.com", "P3": "three@example.com"}


class Source:
    """Has the addresses of some people, and notes the people it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ask(self, ids: Sequence[str]) -> dict[str, str]:
        self.asked += ids
        return {each: PEOPLE[each] for each in ids if each in PEOPLE}


def test_everyone_is_asked_for_once() -> None:
    """People without an address as well."""
    source, cache = Source(), AddressCache()
    assert cache.look_up(["P1", "GONE"], source.ask) == [("P1", "one@example.com")]
    assert cache.look_up(["P2", "GONE", "P1"], source.ask) == [("P2", "two@example.com"), ("P1", "one@example.com")]
    assert source.asked == ["P1", "GONE", "P2"]


def test_a_full_cache_keeps_the_first_people() -> None:
    """The others are asked for each time, and found."""
    source, cache = Source(), AddressCache(most=2)
    for _ in range(2):
        assert dict(cache.look_up(["P1", "P2", "P3"], source.ask)) == PEOPLE
    assert source.asked == ["P1", "P2", "P3", "P3"]


@pytest.mark.parametrize("lists", [0, 1, 3])
@pytest.mark.parametrize("people", [0, 1, 2, 5])
def test_requests_are_known_in_advance(people: int, lists: int) -> None:
    """One for each person who is kept, and for the others one for each list."""
    source, cache = Source(), AddressCache(most=2)
    expected = cache.requests(people, lists)
    for _ in range(lists):
        cache.look_up([f"P{number}" for number in range(people)], source.ask)
    assert len(source.asked) == expected


def test_an_error_of_the_source_leaves_nothing_behind() -> None:
    def fail(ids: Sequence[str]) -> dict[str, str]:
        raise BadAnswer("Odd.")

    source, cache = Source(), AddressCache()
    with pytest.raises(BadAnswer):
        cache.look_up(["P1"], fail)
    assert cache.look_up(["P1"], source.ask) == [("P1", "one@example.com")]


def test_readers_that_need_the_same_people_ask_for_them_once() -> None:
    """The second reader waits for the answer to the first one."""
    source, cache = Source(), AddressCache()
    is_asking, may_answer = threading.Event(), threading.Event()

    def ask_slowly(ids: Sequence[str]) -> dict[str, str]:
        is_asking.set()
        assert may_answer.wait(60)
        return source.ask(ids)

    found: list[list[tuple[str, str]]] = []
    readers = [threading.Thread(target=lambda: found.append(cache.look_up(list(PEOPLE), ask_slowly))) for _ in "ab"]
    readers[0].start()
    assert is_asking.wait(60)
    readers[1].start()
    may_answer.set()
    for reader in readers:
        reader.join(60)
    assert found == [list(PEOPLE.items())] * 2
    assert source.asked == list(PEOPLE)


def test_people_who_are_kept_are_found_while_another_reader_asks() -> None:
    source, cache = Source(), AddressCache()
    cache.look_up(["P1"], source.ask)

    def ask_during_another_look_up(ids: Sequence[str]) -> dict[str, str]:
        assert other.submit(cache.look_up, ["P1"], source.ask).result(10) == [("P1", "one@example.com")]
        return source.ask(ids)

    with ThreadPoolExecutor(1) as other:
        assert cache.look_up(["P2"], ask_during_another_look_up) == [("P2", "two@example.com")]
