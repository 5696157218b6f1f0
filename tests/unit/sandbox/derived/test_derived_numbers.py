"""The numbers that a derived account computes agree with each other, at any size."""

import tracemalloc
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.account.timeline import NOBODY, Window
from sandbox.derived import DerivedAccount, DerivedOptions, derive
from sandbox.derived.arithmetic import Permutation
from sandbox.derived.calendar import Calendar
from sandbox.derived.groups import Members
from sandbox.derived.timeline import DerivedTimeline

HUGE = DerivedOptions(events=50_000_000, members=3_000_000, added_days=3)
SMALL = DerivedOptions(members=5_000, events=30_000, days=20, metrics=120, lists=30, daily_share=0.1, added_days=4)
REFS = st.integers(0, HUGE.events + 3 * HUGE.daily_events)


@pytest.fixture(scope="module")
def huge() -> DerivedAccount:
    return derive(HUGE)


@pytest.fixture(scope="module")
def small() -> DerivedAccount:
    return derive(SMALL)


@given(st.integers(1, 10_000), st.integers(0, 2**64))
def test_a_permutation_reaches_every_number(size: int, seed: int) -> None:
    permutation = Permutation(size, seed)
    numbers = [permutation.at(position) for position in range(size)]
    assert sorted(numbers) == list(range(size))
    assert [permutation.position(number) for number in numbers] == list(range(size))


@given(st.lists(st.sampled_from([0, 1, 2, 7, 3_600, 5_000]), min_size=1, max_size=6), st.integers(-4_000, 30_000))
def test_a_calendar_counts_what_happens_before_a_second(counts: list[int], second: int) -> None:
    calendar = Calendar(0, [0]).extended(counts)
    times = [calendar.time(position) for position in range(len(calendar))]
    assert times == sorted(times)
    assert all(0 <= time < 3_600 * len(counts) for time in times)
    assert calendar.first(second) == sum(time < second for time in times)


@given(low=REFS, length=st.integers(0, 200_000))
def test_metrics_share_out_all_events(huge: DerivedAccount, low: int, length: int) -> None:
    """The counts of all metrics within any window add up to that of all events."""
    timeline = huge.timeline
    since, until = (timeline.times[min(ref, len(timeline) - 1)] for ref in (low, low + length))
    counts = [timeline.count(Window(metric, since, until)) for metric in range(HUGE.metrics)]
    assert sum(counts) == timeline.count(Window(None, since, until))


@given(metric=st.integers(0, HUGE.metrics - 1), share=st.floats(0, 1))
def test_the_events_of_a_metric_are_found_by_number(huge: DerivedAccount, metric: int, share: float) -> None:
    timeline, count = huge.timeline, huge.timeline.count(Window(metric))
    if not count:
        return
    at = int(share * (count - 1))
    refs = [timeline._refs(metric)[each] for each in range(at, min(at + 3, count))]
    assert [timeline.metric(ref) for ref in refs] == [metric] * len(refs)
    assert all(low < high for low, high in pairwise(refs))
    before = timeline.count(Window(metric, until=timeline.time(refs[0])))
    assert before <= at < timeline.count(Window(metric, until=timeline.time(refs[0]) + 1))


def test_metrics_are_as_uneven_as_those_of_real_accounts(huge: DerivedAccount) -> None:
    """A few metrics have most events, many have few, and a fifth of the others have none."""
    counts = sorted(huge.timeline.count(Window(metric)) for metric in range(HUGE.metrics))
    assert sum(counts) == len(huge.timeline)
    assert sum(counts[-3:]) > 0.5 * sum(counts)
    assert counts.count(0) >= 0.19 * (HUGE.metrics - 25)
    assert sum(0 < count < 1_000 for count in counts) > 50


@given(ref=st.integers(0, HUGE.events - 1))
def test_the_events_of_a_person_are_found_without_reading_others(huge: DerivedAccount, ref: int) -> None:
    timeline, person = huge.timeline, huge.timeline.person(ref)
    if person == NOBODY:
        return
    refs = timeline.of_person(person, None)
    assert ref in refs
    assert list(refs) == sorted(refs)
    assert {timeline.person(each) for each in refs} == {person}
    assert timeline.last_event(person) == timeline.time(refs[-1])
    metric = timeline.metric(ref)
    assert timeline.of_person(person, metric) == [each for each in refs if timeline.metric(each) == metric]


def test_all_events_belong_to_the_people_who_have_them(small: DerivedAccount) -> None:
    timeline = small.timeline
    owners = Counter(map(timeline.person, timeline.every()))
    assert owners.pop(NOBODY) > 0
    assert owners == {person: count for person in range(len(small.people)) if (count := events_of(timeline, person))}
    busiest = sum(count for _, count in owners.most_common(SMALL.members // 10))
    assert busiest > 0.5 * len(timeline)


def events_of(timeline: DerivedTimeline, person: int) -> int:
    return len(timeline.of_person(person, None))


def people_in(account: DerivedAccount, name: str) -> Iterator[tuple[int, int]]:
    """Yield the time and the person of each position of an order that is not empty."""
    order = getattr(account.orders, name)
    return ((order.time(at), person) for at in range(len(order)) if (person := order.person(at)) is not None)


@pytest.mark.parametrize("name", ["by_created", "by_updated"])
def test_an_order_has_each_person_once(small: DerivedAccount, name: str) -> None:
    rows = list(people_in(small, name))
    times = getattr(small.people, name.removeprefix("by_"))
    assert sorted(person for _, person in rows) == list(range(len(small.people)))
    assert [time for time, _ in rows] == sorted(time for time, _ in rows)
    assert all(times[person] == time for time, person in rows)


def test_people_are_updated_after_they_were_created(small: DerivedAccount) -> None:
    people = small.people
    assert all(people.created[index] <= people.updated[index] < small.options.end for index in people.indexes())


def test_many_people_are_updated_at_once_by_an_import(small: DerivedAccount) -> None:
    hours = Counter(people // 3_600 for people in small.people.updated)
    assert hours.most_common(1)[0][1] > 0.05 * len(small.people)


def test_the_members_of_a_list_are_those_of_its_order(small: DerivedAccount) -> None:
    assert small.orders is not None
    for group in (*small.lists.values(), *small.segments.values()):
        order = small.orders.members(group.id)
        rows = [(order.time(at), person) for at in range(len(order)) if (person := order.person(at)) is not None]
        members = {person for person in range(len(small.people)) if person in group.joined}
        assert isinstance(group.joined, Members)
        assert [time for time, _ in rows] == sorted(time for time, _ in rows)
        assert {person: time for time, person in rows} == dict(group.joined)
        assert {person for _, person in rows} == members == set(group.joined.following(0))
        assert len(rows) == len(group.joined) == len(members)
        assert list(group.joined.following(37)) == sorted(person for person in members if person >= 37)


def test_an_added_day_only_adds() -> None:
    """Events before it stay the same, and as many events, people and memberships change as the daily share says."""
    options = replace(SMALL, members=1_000, events=5_000)
    account = derive(options)
    events = [account.timeline.row(ref) for ref in range(len(account.timeline))]
    profiles = [account.people.profile(index) for index in account.people.indexes()]
    members = {group.id: set(group.joined) for group in account.lists.values()}
    account.add_days(1)
    assert [account.timeline.row(ref) for ref in range(len(events))] == events
    assert len(account.timeline) == len(events) + options.daily_events
    assert len(account.people) == len(profiles) + options.daily_people
    changed = [index for index, old in enumerate(profiles) if account.people.updated[index] != old.updated]
    assert changed == list(account.people.lives.changed_on(5))
    for index in changed:
        new = account.people.profile(index)
        assert new.updated >= account.options.end - 86_400
        assert new.properties != profiles[index].properties
    now = {group.id: set(group.joined) for group in account.lists.values()}
    assert any(now[each] - members[each] for each in now)
    assert any(members[each] - now[each] for each in now)
    derived = derive(replace(options, added_days=5))
    assert [derived.timeline.row(ref) for ref in derived.timeline.every()] == [
        account.timeline.row(ref) for ref in account.timeline.every()
    ]


def test_a_huge_account_needs_little_memory() -> None:
    options = replace(HUGE, days=60, lists=20)  # what takes memory, but little
    tracemalloc.start()
    try:
        account = derive(options)
        for metric in range(0, HUGE.metrics, 50):
            account.timeline.read(Window(metric), 1_000)
        for group in account.lists.values():
            assert len(group.joined) > 10_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10_000_000
