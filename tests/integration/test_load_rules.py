"""The rules of single tables: older extractions, rows that the source no longer has, and rows from two sources."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from klaviyo_pg.catalogue import loads
from tests.merging import counts, rows

JAN, FEB, MAR = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))


def attribute(person: str, name: str | None, value: str | None, at: datetime = JAN) -> dict[str, Any]:
    return {"key": person, "id": person, "name": name, "value": value, "created_at": at, "updated_at": at}


@pytest.mark.parametrize(
    ("stored", "loaded", "city"),
    [
        pytest.param(JAN, FEB, "new", id="newer"),
        pytest.param(FEB, FEB, "new", id="same time"),
        pytest.param(FEB, JAN, "old", id="older"),
    ],
)
def test_older_extractions_do_not_restore_older_values(
    merged: Any, connection: psycopg.Connection, stored: datetime, loaded: datetime, city: str
) -> None:
    """A person has the values of the latest extraction, whatever the order in which extractions are loaded."""
    merged(loads.MEMBERS, {"key": "a", "id": "a", "city": "old", "updated_at": stored})
    merged(loads.MEMBERS, {"key": "a", "id": "a", "city": "new", "updated_at": loaded})
    assert rows(connection, "members", "city", "updated_at") == [(city, max(stored, loaded))]


def test_an_older_extraction_does_not_restore_a_consent(merged: Any, connection: psycopg.Connection) -> None:
    """Two runs can read a person at nearly the same time, and store what they have read in the other order."""
    merged(loads.MEMBERS, {"key": "a", "id": "a", "consent": "UNSUBSCRIBED", "updated_at": FEB})
    merged(loads.MEMBERS, {"key": "a", "id": "a", "consent": "SUBSCRIBED", "updated_at": JAN})
    assert rows(connection, "members", "id", "consent") == [("a", "UNSUBSCRIBED")]


def test_an_extraction_from_the_future_is_replaced(merged: Any, connection: psycopg.Connection) -> None:
    """It was made with a clock that was ahead. Otherwise, later extractions would be ignored until that time."""
    year = datetime.now(UTC) + timedelta(days=365)
    merged(loads.MEMBERS, {"key": "a", "id": "a", "city": "wrong", "updated_at": year})
    merged(loads.MEMBERS, {"key": "a", "id": "a", "city": "right", "updated_at": MAR})
    assert rows(connection, "members", "city", "updated_at") == [("right", MAR)]
    merged(loads.MEMBER_ATTRIBUTES, attribute("a", "size", "1", year), attribute("a", "color", "red", year))
    merged(loads.MEMBER_ATTRIBUTES, attribute("a", "size", "2", MAR))
    assert rows(connection, "member_attributes", "name", "value") == [("size", "2")]


def test_a_person_who_was_only_met_changes_no_stored_row(merged: Any, connection: psycopg.Connection) -> None:
    """Pages of events have only an ID and an address, and their time says nothing about the other columns."""
    merged(loads.MEMBERS, {"key": "a", "id": "a", "email": "a@example.com", "city": "Cork", "updated_at": JAN})
    connection.execute("UPDATE members SET deleted_at = %s", [FEB])
    met = merged(loads.MEMBER_STUBS, {"key": "a", "id": "a", "email": "new"}, {"key": "b", "id": "b", "email": "b"})
    assert (met.inserted, met.updated, met.unchanged) == (1, 0, 1)
    assert rows(connection, "members", "id", "email", "city", "updated_at", "deleted_at") == [
        ("a", "a@example.com", "Cork", JAN, FEB),
        ("b", "b", None, None, None),
    ]


def test_a_record_that_was_read_before_the_person_was_met_completes_them(
    merged: Any, connection: psycopg.Connection
) -> None:
    """Events and profiles are read side by side."""
    merged(loads.MEMBER_STUBS, {"key": "a", "id": "a"})
    merged(loads.MEMBERS, {"key": "a", "id": "a", "city": "Cork", "updated_at": JAN})
    assert rows(connection, "members", "city", "updated_at") == [("Cork", JAN)]


def test_people_who_are_all_stored_are_not_written(merged: Any, connection: psycopg.Connection) -> None:
    """Not even a temporary table is created."""
    merged(loads.MEMBER_STUBS, {"key": "a", "id": "a"})
    query = "SELECT pg_current_wal_insert_lsn() - '0/0'"
    before = connection.execute(query).fetchone()
    merged(loads.MEMBER_STUBS, {"key": "a", "id": "a", "email": "new"})
    assert connection.execute(query).fetchone() == before


def flow_campaign(name: str | None, first: datetime, last: datetime) -> dict[str, Any]:
    times = {"created_at": first, "updated_at": last}
    return {"key": "c", "id": "c", "name": name, "subject": name, "automation_key": "f", "type": "Campaign", **times}


@pytest.mark.parametrize(
    ("chunks", "name", "times"),
    [
        pytest.param([("B", FEB, MAR), ("A", JAN, FEB)], "B", (JAN, MAR), id="older history loaded later"),
        pytest.param([("A", JAN, FEB), ("B", FEB, MAR)], "B", (JAN, MAR), id="in order"),
        pytest.param([("A", JAN, MAR), ("B", FEB, FEB)], "A", (JAN, MAR), id="within"),
        pytest.param([("A", JAN, FEB), (None, FEB, MAR)], "A", (JAN, MAR), id="later events without a name"),
        pytest.param([(None, FEB, MAR), ("A", JAN, FEB)], "A", (JAN, MAR), id="earlier events with a name"),
    ],
)
def test_flow_campaigns_cover_all_loaded_events(
    merged: Any,
    connection: psycopg.Connection,
    chunks: list[tuple[str | None, datetime, datetime]],
    name: str,
    times: tuple[datetime, datetime],
) -> None:
    """Chunks extend the period between the two times, and the name is the latest one that is not null."""
    for chunk in chunks:
        merged(loads.FLOW_CAMPAIGNS, flow_campaign(*chunk))
    assert rows(connection, "campaigns", "name", "subject", "created_at", "updated_at") == [(name, name, *times)]
    assert counts(merged(loads.FLOW_CAMPAIGNS, flow_campaign(*chunks[0]))) == (1, 0, 0, 1)


def test_a_listed_campaign_replaces_the_one_derived_from_events(merged: Any, connection: psycopg.Connection) -> None:
    """Events do not overwrite it afterwards."""
    listed = {"key": "c", "id": "c", "name": "listed", "created_at": FEB, "updated_at": FEB, "type": "Campaign"}
    merged(loads.FLOW_CAMPAIGNS, flow_campaign("flow", JAN, MAR))
    assert counts(merged(loads.CAMPAIGNS, listed)) == (1, 0, 1, 0)
    assert counts(merged(loads.FLOW_CAMPAIGNS, flow_campaign("flow", JAN, MAR))) == (1, 0, 0, 1)
    assert rows(connection, "campaigns", "name", "automation_key", "created_at") == [("listed", None, FEB)]


PLACEHOLDER = {"key": "c", "id": "c", "type": "Campaign", "deleted_at": JAN, "is_placeholder": True}


def test_a_placeholder_stays_until_the_source_lists_the_campaign(merged: Any, connection: psycopg.Connection) -> None:
    """A full read neither loses it nor counts it as lost. A campaign that is listed never becomes one."""
    listed = {"key": "c", "id": "c", "name": "listed", "type": "Campaign", "is_placeholder": False}
    state = ("name", "deleted_at", "is_placeholder")
    assert counts(merged(loads.CAMPAIGN_PLACEHOLDERS, PLACEHOLDER)) == (1, 1, 0, 0)
    assert counts(merged(loads.CAMPAIGN_PLACEHOLDERS, PLACEHOLDER | {"deleted_at": FEB})) == (1, 0, 0, 1)
    merged(loads.CAMPAIGNS)
    assert rows(connection, "campaigns", *state) == [(None, JAN, True)]
    assert counts(merged(loads.CAMPAIGNS, listed)) == (1, 0, 1, 0)
    assert counts(merged(loads.CAMPAIGN_PLACEHOLDERS, PLACEHOLDER)) == (1, 0, 0, 1)
    assert rows(connection, "campaigns", *state) == [("listed", None, False)]


def test_a_placeholder_becomes_the_message_of_a_flow(merged: Any, connection: psycopg.Connection) -> None:
    """An event without the flow was read first."""
    merged(loads.CAMPAIGN_PLACEHOLDERS, PLACEHOLDER)
    merged(loads.FLOW_CAMPAIGNS, flow_campaign("flow", JAN, MAR) | {"is_placeholder": False})
    state = ("name", "automation_key", "created_at", "deleted_at", "is_placeholder")
    assert rows(connection, "campaigns", *state) == [("flow", "f", JAN, None, False)]


def test_rows_that_the_source_no_longer_has_are_marked_until_they_return(
    merged: Any, connection: psycopg.Connection
) -> None:
    """A complete read marks them, and a mark keeps its time."""
    merged(loads.METRICS, {"key": "a", "id": "a"}, {"key": "b", "id": "b"})
    merged(loads.METRICS, {"key": "a", "id": "a"})
    (_, gone), (_, marked) = rows(connection, "metrics", "key", "deleted_at")
    assert gone is None and marked is not None
    merged(loads.METRICS, {"key": "a", "id": "a"})
    assert rows(connection, "metrics", "key", "deleted_at") == [("a", None), ("b", marked)]
    assert counts(merged(loads.METRICS, {"key": "a", "id": "a"}, {"key": "b", "id": "b"})) == (2, 0, 1, 1)
    assert rows(connection, "metrics", "key", "deleted_at") == [("a", None), ("b", None)]


def test_reading_one_kind_does_not_mark_another_kind_as_deleted(merged: Any, connection: psycopg.Connection) -> None:
    """Lists and segments share a table, and so do campaigns and flow campaigns."""
    merged(loads.LISTS, {"key": "l", "id": "l", "list_type": "list"})
    merged(loads.SEGMENTS_AS_LISTS, {"key": "s", "id": "s", "list_type": "segment"})
    merged(loads.FLOW_CAMPAIGNS, flow_campaign("flow", JAN, MAR))
    merged(loads.CAMPAIGNS)
    merged(loads.SEGMENTS_AS_LISTS)
    assert rows(connection, "lists", "key", "deleted_at")[0] == ("l", None)
    assert rows(connection, "lists", "key", "deleted_at")[1][1] is not None
    assert rows(connection, "campaigns", "key", "deleted_at") == [("c", None)]


def test_exclusions_that_ended_are_marked(merged: Any, connection: psycopg.Connection) -> None:
    """The staging table contains the last extraction only, the final table also contains earlier ones."""
    both = [{"_sync_id": each, "email": each, "reason": "HARD_BOUNCE"} for each in ("a", "b")]
    for excluded in (both, both[:1]):
        merged(loads.STG_MEMBER_EXCLUSIONS, *excluded)
        merged(loads.MEMBER_EXCLUSIONS, *excluded)
    assert rows(connection, "stg_member_exclusions", "email", "reason") == [("a", "HARD_BOUNCE")]
    assert [(email, at is None) for email, at in rows(connection, "member_exclusions", "email", "removed_at")] == [
        ("a", True),
        ("b", False),
    ]


def test_audiences_that_a_campaign_lost_are_deleted(merged: Any, connection: psycopg.Connection) -> None:
    """Audiences of campaigns that were not read stay."""

    def audience(list_id: str, campaign: str) -> dict[str, Any]:
        key = f"{list_id}:{campaign}"
        return {"key": key, "id": key, "list_id": list_id, "campaign_id": campaign, "audience": "included"}

    merged(loads.CAMPAIGN_LISTS, audience("l1", "c1"), audience("l2", "c1"), audience("l1", "c2"))
    merged(loads.CAMPAIGN_LISTS, audience("l2", "c1"))
    assert rows(connection, "campaign_lists", "key", "id") == [("l1:c2", "l1:c2"), ("l2:c1", "l2:c1")]


@pytest.mark.parametrize(
    ("loaded", "left"),
    [
        pytest.param([("a", "size", "L")], {("a", "size", "L"), ("b", "size", "S")}, id="one is missing"),
        pytest.param(
            [("a", "size", "M"), ("a", "new", "1")],
            {("a", "size", "M"), ("a", "new", "1"), ("b", "size", "S")},
            id="other ones",
        ),
        pytest.param([("a", None, None)], {("b", "size", "S")}, id="none is left"),
        pytest.param([], {("a", "size", "M"), ("a", "hat", "1"), ("b", "size", "S")}, id="no one is loaded"),
    ],
)
def test_properties_that_a_person_lost_are_deleted(
    merged: Any,
    connection: psycopg.Connection,
    loaded: list[tuple[str, str | None, str | None]],
    left: set[tuple[str, str, str]],
) -> None:
    """Properties of other people stay. A row without a name means that a person has none; it is not stored."""
    merged(
        loads.MEMBER_ATTRIBUTES, attribute("a", "size", "M"), attribute("a", "hat", "1"), attribute("b", "size", "S")
    )
    result = merged(loads.MEMBER_ATTRIBUTES, *(attribute(*each, FEB) for each in loaded))
    assert set(rows(connection, "member_attributes", "key", "name", "value")) == left
    assert result.rows == sum(name is not None for _, name, _ in loaded)
    assert result.rows == result.inserted + result.updated + result.unchanged


def test_an_older_extraction_neither_changes_nor_deletes_properties(
    merged: Any, connection: psycopg.Connection
) -> None:
    """Later values stay, and so does the time of the first extraction."""
    merged(loads.MEMBER_ATTRIBUTES, attribute("a", "size", "M", FEB), attribute("a", "hat", "1", FEB))
    merged(loads.MEMBER_ATTRIBUTES, attribute("a", "size", "L", JAN))
    assert rows(connection, "member_attributes", "name", "value") == [("hat", "1"), ("size", "M")]
    merged(loads.MEMBER_ATTRIBUTES, attribute("a", "size", "L", MAR))
    assert rows(connection, "member_attributes", "name", "value", "created_at") == [("size", "L", FEB)]


@pytest.mark.parametrize(
    ("extracted", "counted", "stay"),
    [
        pytest.param(MAR, (3, 1, 1, 1), [2], id="it is newer"),
        pytest.param(JAN, (3, 1, 0, 2), [0, 1], id="both are newer"),
    ],
)
def test_an_event_that_is_stored_at_several_other_times_is_counted_once(
    merged: Any, connection: psycopg.Connection, extracted: datetime, counted: tuple[int, ...], stay: list[int]
) -> None:
    """Rows that were too far apart to be found lie near the new one."""

    def opened(key: str, hours: int, at: datetime = FEB) -> dict[str, Any]:
        time = JAN + timedelta(hours=hours)
        return {"key": key, "id": key, "metric_key": "m", "event_at": time, "extracted_at": at}

    opens = loads.EVENTS["opens"]
    merged(opens, opened("stored", 1))
    for hours in (0, 1):
        connection.execute(
            "INSERT INTO opens (key, id, metric_key, event_at, extracted_at, esp_integration_id)"
            " VALUES ('moved', 'moved', 'm', %s, %s, 'one')",
            [JAN + timedelta(hours=hours), FEB],
        )
    assert counts(merged(opens, opened("stored", 1), opened("new", 1), opened("moved", 2, extracted))) == counted
    times = [at for key, at in rows(connection, "opens", "key", "event_at") if key == "moved"]
    assert times == [JAN + timedelta(hours=hours) for hours in stay]
