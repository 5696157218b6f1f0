"""Ids are unique, have the format of Klaviyo's ids, and can be converted back into an index."""

import re
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.account.ids import EventIds, ProfileIds, event_uuid, is_event_id, token, ulid, uuid

EVENTS, PROFILES = EventIds("account", 1), ProfileIds("account", 1)


@given(st.integers(0, 62**11 - 1))
def test_event_ids_round_trip(index: int) -> None:
    """An event id can be converted back into the index of the event."""
    event_id = EVENTS.of(index).decode()
    assert re.fullmatch(r"[0-9A-Za-z]{11}", event_id)
    assert is_event_id(event_id)
    assert EVENTS.index(event_id) == index


@given(st.integers(0, (1 << 30) - 1), st.integers(0, 2_000_000_000))
def test_profile_ids_round_trip(index: int, created: int) -> None:
    """A profile id is a ULID of the second of creation and can be converted back into the index of the profile."""
    profile_id = PROFILES.of(index, created)
    assert re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", profile_id)
    assert PROFILES.index(profile_id) == index
    assert profile_id[:10] == ulid(created, 0)[:10]


@pytest.mark.parametrize("text", ["", "NOPE01", "0123456789é", "0123456789-", "x" * 12, "x" * 26, "\x00" * 11])
def test_other_texts_are_not_ids(text: str) -> None:
    assert EVENTS.index(text) == -1
    assert PROFILES.index(text) == -1
    assert not is_event_id(text)


def test_ids_are_unique() -> None:
    """Ids differ within an account and between accounts."""
    ids = {EVENTS.of(index) for index in range(50_000)}
    assert len(ids) == 50_000
    assert not ids & {EventIds("account", 2).of(index) for index in range(50_000)}
    assert len({PROFILES.of(index, 0) for index in range(20_000)}) == 20_000


@given(st.integers(0, 4_000_000_000), st.integers(0, 10**9))
def test_event_uuids_encode_the_second(second: int, index: int) -> None:
    """The uuid of an event is time-based and contains the second of the event."""
    read = UUID(event_uuid(second, index))
    assert read.version == 1
    assert (read.time - 0x01B21DD213814000) // 10_000_000 == second


def test_ulids_sort_by_time() -> None:
    """A later ULID sorts after an earlier one, whatever their random bits are."""
    times = [datetime(2026, month, 1, tzinfo=UTC).timestamp() for month in range(1, 13)]
    ids = [ulid(at, 2**80 - 1 - number) for number, at in enumerate(times)]
    assert ids == sorted(ids)


def test_short_ids_depend_on_all_parts() -> None:
    """Ids of metrics, flows and lists have six characters, and the same parts give the same id."""
    assert re.fullmatch(r"[0-9A-Za-z]{6}", token("metric", 1))
    assert token("metric", 1) == token("metric", 1) != token("metric", 2)
    assert UUID(uuid("a")) != UUID(uuid("b"))
