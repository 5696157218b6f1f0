"""The cache of stored people, and one reader's view of it."""

from concurrent.futures import ThreadPoolExecutor

from klaviyo_pg.klaviyo.people_cache import KnownPerson, PendingPeople, PeopleCache

ADA, BOB = KnownPerson("p1", "ada@example.com"), KnownPerson("p2", None)
RECORD, OTHER = b'{"id":"p1"}', b'{"id":"p2"}'


def test_a_reader_knows_the_people_it_has_read() -> None:
    people = PendingPeople(PeopleCache())
    assert people.get(RECORD) is None
    people.add(RECORD, ADA)
    assert people.get(RECORD) == ADA
    assert people.get(OTHER) is None


def test_another_reader_knows_only_committed_people() -> None:
    """Until a person's row is stored, every other reader must read the person, too."""
    cache = PeopleCache()
    people, other = PendingPeople(cache), PendingPeople(cache)
    people.add(RECORD, ADA)
    assert other.get(RECORD) is None
    people.commit(people.take_added())
    assert other.get(RECORD) == people.get(RECORD) == cache.get(RECORD) == ADA


def test_a_failed_reader_takes_nothing_from_the_others() -> None:
    """People of a failed reader are new again. Everything that was committed stays known."""
    cache = PeopleCache()
    people, failed = PendingPeople(cache), PendingPeople(cache)
    people.add(RECORD, ADA)
    people.commit(people.take_added())
    failed.add(OTHER, BOB)
    del failed
    retried = PendingPeople(cache)
    assert retried.get(OTHER) is None
    assert retried.get(RECORD) == ADA


def test_a_commit_moves_only_the_people_whose_rows_are_stored() -> None:
    """The next page may have been read by then. Its people stay pending."""
    cache = PeopleCache()
    people = PendingPeople(cache)
    people.add(RECORD, ADA)
    stored = people.take_added()
    people.add(OTHER, BOB)
    people.commit(stored)
    assert (cache.get(RECORD), cache.get(OTHER), people.get(OTHER)) == (ADA, None, BOB)
    people.commit(people.take_added())
    assert cache.get(OTHER) == BOB


def test_the_cache_is_bounded() -> None:
    """A full cache is emptied. A person who is forgotten is read again."""
    cache = PeopleCache(most=10)
    people = PendingPeople(cache)
    for number in range(25):
        people.add(str(number).encode(), ADA)
    people.commit(people.take_added())
    assert 0 < sum(cache.get(str(number).encode()) is not None for number in range(25)) <= 10
    assert cache.get(b"24") == ADA


def test_threads_share_a_cache() -> None:
    """All threads know the people that any of them has committed."""
    cache = PeopleCache()

    def read(thread: int) -> None:
        people = PendingPeople(cache)
        for number in range(500):
            people.add(f"{thread} {number}".encode(), ADA)
            people.commit(people.take_added())

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(read, range(8)))
    records = [f"{thread} {number}".encode() for thread in range(8) for number in range(500)]
    assert all(cache.get(record) == ADA for record in records)
