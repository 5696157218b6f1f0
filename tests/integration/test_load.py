"""Loading frames into tables: what is stored, what is counted, and what stays unchanged."""

import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import polars as pl
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL, Identifier

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.load import Merged, merge
from klaviyo_pg.rows import EventPage, Events, Lines
from tests.driver import PATIENCE
from tests.integration.conftest import EVENT_TIME, SCHEMA
from tests.merging import counts, rows
from tests.people_frames import people
from tests.rows import profile_row
from transforms.event_lines import event_lines
from transforms.events import Metrics, event_frames

JAN = datetime(2026, 1, 1, tzinfo=UTC)
OPENS = loads.EVENTS["opens"]
LOADS = [load for load in vars(loads).values() if isinstance(load, Load)] + list(loads.EVENTS.values())
ROUND_TRIP = settings(
    max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


def opened(key: str, value: str | None = None, **others: Any) -> dict[str, Any]:
    return {"key": key, "id": key, "value": value, "properties": "{}", **others}


@pytest.mark.parametrize("load", [OPENS, loads.MEMBERS], ids=["mostly new rows", "others"])
def test_every_row_is_counted_once(merged: Any, connection: psycopg.Connection, load: Any) -> None:
    """A row is inserted, updated or unchanged."""
    table, column = load.table.name, "email"

    def row(key: str, email: str) -> dict[str, Any]:
        return {"key": key, "id": key, column: email}

    assert counts(merged(load, row("a", "1"), row("b", "1"))) == (2, 2, 0, 0)
    assert counts(merged(load, row("c", "1"))) == (1, 1, 0, 0)
    assert counts(merged(load, row("a", "1"), row("b", "2"), row("d", "1"))) == (3, 1, 1, 1)
    assert rows(connection, table, "key", column) == [("a", "1"), ("b", "2"), ("c", "1"), ("d", "1")]
    assert counts(merged(load)) == (0, 0, 0, 0)


@pytest.mark.parametrize("load", [OPENS, loads.MEMBERS, loads.METRICS], ids=lambda load: load.table.name)
def test_loading_the_same_frame_again_writes_nothing(merged: Any, connection: psycopg.Connection, load: Any) -> None:
    """Rows that did not change keep their version in the database."""
    same = [{"key": each, "id": each} for each in "abc"]
    versions = f"SELECT key, xmin::text, ctid::text, __synced_at FROM {load.table.name} ORDER BY key"
    merged(load, *same)
    before = connection.execute(versions).fetchall()
    assert counts(merged(load, *same)) == (3, 0, 0, 3)
    assert connection.execute(versions).fetchall() == before


def test_a_batch_with_a_stored_row_that_no_probe_found_is_merged(merged: Any, connection: psycopg.Connection) -> None:
    """Only a few keys are probed before rows are appended, so they can miss a row that is already stored."""
    merged(OPENS, opened("k0777", "1"))
    result = merged(OPENS, *(opened(f"k{each:04}", "2") for each in range(1000)))
    assert counts(result) == (1000, 999, 1, 0)
    assert rows(connection, "opens", "value", "esp_source") == [(2, "Klaviyo")] * 1000


def test_appended_and_merged_rows_have_their_origin_and_time(merged: Any, connection: psycopg.Connection) -> None:
    """The database fills in the same columns in both cases."""
    merged(OPENS, opened("a"))
    merged(OPENS, opened("a", "1"), opened("b"))
    query = (
        "SELECT esp_source, esp_integration_id, __synced_at BETWEEN now() - interval '1 minute' AND now() FROM opens"
    )
    assert connection.execute(query).fetchall() == [("Klaviyo", "one", True)] * 2


@pytest.mark.parametrize("load", [OPENS, loads.STG_MEMBER_LISTS], ids=["events", "list members"])
def test_appended_rows_have_the_time_of_their_transaction(
    merged: Any, connection: psycopg.Connection, load: Any
) -> None:
    key = load.table.identity[0]
    with connection.transaction():
        merged(load, {key: "a"}, {key: "b"})
        query = SQL("SELECT __synced_at = now() FROM {}").format(Identifier(load.table.name))
        assert connection.execute(query).fetchall() == [(True,)] * 2


def test_members_of_a_list_are_stored_once(merged: Any, connection: psycopg.Connection) -> None:
    """Most are new when a list is read for the first time, and most are stored when it is read again."""
    members = [{"_sync_id": f"{each:04}", "list_id": "L1"} for each in range(300)]
    assert counts(merged(loads.STG_MEMBER_LISTS, *members[:200])) == (200, 200, 0, 0)
    assert counts(merged(loads.STG_MEMBER_LISTS, *members)) == (300, 100, 0, 200)
    assert counts(merged(loads.STG_MEMBER_LISTS, *members, integration_id="two")) == (300, 300, 0, 0)
    assert connection.execute("SELECT count(*) FROM stg_member_lists").fetchone() == (600,)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param({"value": "1e200000"}, id="number out of range"),
        pytest.param({"value": "twelve"}, id="not a number"),
        pytest.param({"email": "a\x00b"}, id="NUL"),
    ],
)
def test_a_row_that_cannot_be_stored_is_returned_and_the_others_are_stored(
    merged: Any, connection: psycopg.Connection, bad: dict[str, Any]
) -> None:
    """It comes with Postgres' reason, whether the batch is new or not."""
    for value in ("1", "2"):
        good = [opened(f"k{each}", value) for each in range(7)]
        result = merged(OPENS, *good[:3], opened("bad", **{"value": None, **bad}) | bad, *good[3:])
        (unstorable,) = result.unstorable
        assert json.loads(unstorable.row)["key"] == "bad" and unstorable.reason
        assert result.rows == 8 and result.inserted + result.updated == 7 and result.unchanged == 0
        assert rows(connection, "opens", "key", "value") == [(f"k{each}", int(value)) for each in range(7)]


@pytest.mark.parametrize(
    ("properties", "kept"),
    [
        pytest.param('{"a":"\\ud800"}', {"a": "\N{REPLACEMENT CHARACTER}"}, id="lone surrogate"),
        pytest.param('{"a":1e200000,"b":1}', {"a": "1e200000", "b": 1}, id="number out of range"),
        pytest.param("not JSON", None, id="not JSON"),
    ],
)
def test_a_document_that_cannot_be_stored_does_not_cost_its_row(
    merged: Any, connection: psycopg.Connection, properties: str, kept: object
) -> None:
    """The refused value is replaced, or else the whole document. The original comes back."""
    for unchanged in (0, 1):
        result = merged(OPENS, opened("a", "1"), {**opened("bad", "1"), "properties": properties})
        (changed,) = result.unstorable
        assert json.loads(changed.row)["properties"] == properties and changed.replaced == 1
        assert (result.rows, result.unchanged) == (2, 2 * unchanged)
        assert rows(connection, "opens", "key", "properties") == [("a", {}), ("bad", kept)]


def lines(read_at: datetime, *events: dict[str, Any]) -> Lines:
    """Return events of the metric "m" as lines. What they do not name is null."""
    event = {**dict.fromkeys(Events._fields), "at": 1_750_000_000, "metric_id": "m", "properties": b"{}"}
    columns = Events(*([{**event, **each}[name] for each in events] for name in Events._fields))
    made = event_lines([EventPage(columns, (), (), read_at)], Metrics({}, {"m": "opens"}), "one")
    assert made is not None
    return made.tables["opens"]


def test_lines_are_appended_and_merged_like_frames(account: Account, connection: psycopg.Connection) -> None:
    """New ones are appended. If one is stored or cannot be stored, they are merged, and the others are stored."""
    both = lines(JAN, {"id": "a", "value": "1"}, {"id": "b", "email": "Å@b.c", "properties": b'{"x": "y"}'})
    refused = {"id": "d", "properties": b'{"a":"\\ud800"}'}
    later = JAN.replace(month=2)
    with connection.transaction():
        assert counts(merge(account, OPENS, both)) == (2, 2, 0, 0)
        assert counts(merge(account, OPENS, both)) == (2, 0, 0, 2)
        result = merge(account, OPENS, lines(later, {"id": "a", "value": "2"}, {"id": "c"}, refused))
        assert counts(result) == (3, 2, 1, 0)
        assert [each.replaced for each in result.unstorable] == [1]
        result = merge(account, OPENS, Lines.joined([lines(JAN, {"id": "e"}), lines(later, {"id": "e", "value": "3"})]))
        assert counts(result) == (1, 1, 0, 0)
        moved = [lines(JAN, {"id": "f", "at": 1}), lines(later, {"id": "f", "at": 86_400})]
        assert counts(merge(account, OPENS, Lines.joined(moved))) == (1, 1, 0, 0)
    assert connection.execute("SELECT count(*), count(DISTINCT id) FROM opens").fetchone() == (6, 6)
    connection.execute("DELETE FROM opens WHERE id = 'f'")
    assert rows(connection, "opens", "id", "value", "email", "properties") == [
        ("a", 2, None, {}),
        ("b", None, "Å@b.c", {"x": "y"}),
        ("c", None, None, {}),
        ("d", None, None, {"a": "\N{REPLACEMENT CHARACTER}"}),
        ("e", 3, None, {}),
    ]
    filled_in = "SELECT DISTINCT esp_source, esp_integration_id, __synced_at IS NOT NULL FROM opens"
    assert connection.execute(filled_in).fetchall() == [("Klaviyo", account.integration_id, True)]


def test_an_event_without_an_id_does_not_stop_the_others(merged: Any, connection: psycopg.Connection) -> None:
    """It has no key, so it cannot be stored."""
    merged(OPENS, opened("a"), {"key": None, "id": None})
    assert rows(connection, "opens", "key", "id") == [("a", "a")]


def test_a_failure_leaves_the_transaction_usable_and_nothing_behind(
    account: Account, connection: psycopg.Connection
) -> None:
    """One transaction can load one table twice, even if the first frame has a row that cannot be stored."""
    frame = pl.DataFrame([{**dict.fromkeys(OPENS.schema), **opened("a", "x", event_at=JAN)}], OPENS.schema)
    with pytest.raises(ZeroDivisionError), connection.transaction():
        assert merge(account, OPENS, frame).unstorable
        assert merge(account, OPENS, frame.with_columns(value=pl.lit("1"))).inserted == 1
        raise ZeroDivisionError
    assert rows(connection, "opens", "key", "id") == []


texts = st.none() | st.text(
    st.characters(exclude_characters="\x00", exclude_categories=["Cs"]) | st.sampled_from('\t\r\n\x01"\\N.,'),
    max_size=8,
)


@ROUND_TRIP
@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=12))
def test_text_is_stored_unchanged(
    merged: Any, connection: psycopg.Connection, pairs: list[tuple[str | None, str | None]]
) -> None:
    """This includes tabs, newlines, quotes, backslash-N and emoji. Null and the empty string stay different."""
    connection.execute("TRUNCATE opens, members")
    for load in (OPENS, loads.MEMBERS):
        new = [{"key": f"{at:03}", "id": one, "email": other} for at, (one, other) in enumerate(pairs)]
        assert merged(load, *new).unstorable == []
        assert [row[1:] for row in rows(connection, load.table.name, "key", "id", "email")] == pairs


@ROUND_TRIP
@given(
    st.lists(
        st.tuples(
            st.datetimes(timezones=st.just(UTC)),
            st.floats(allow_nan=False),
            st.integers(-(10**50), 10**50) | st.decimals(allow_nan=False, allow_infinity=False, places=9),
            st.recursive(
                st.integers()
                | st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
                | st.none(),
                st.lists,
            ),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_times_numbers_and_json_are_stored_unchanged(
    merged: Any, connection: psycopg.Connection, values: list[tuple[datetime, float, Any, Any]]
) -> None:
    """Times from the year 1 to 9999 keep their microseconds, numbers all digits, and JSON its meaning."""
    connection.execute("TRUNCATE opens, members")
    keyed = [(f"{at:03}", *each) for at, each in enumerate(values)]
    events = [
        opened(key, str(number), event_at=at, properties=json.dumps(value)) for key, at, _, number, value in keyed
    ]
    assert merged(OPENS, *events).unstorable == []
    assert merged(loads.MEMBERS, *({"key": key, "latitude": place} for key, _, place, _, _ in keyed)).unstorable == []
    assert rows(connection, "opens", "key", "event_at", "value", "properties") == [
        (key, at, number, value) for key, at, _, number, value in keyed
    ]
    assert rows(connection, "members", "key", "latitude") == [(key, place) for key, _, place, _, _ in keyed]


@pytest.mark.parametrize(
    "load",
    [loads.METRICS, loads.LISTS, loads.STG_MEMBER_EXCLUSIONS, loads.MEMBER_EXCLUSIONS, loads.MEMBER_ATTRIBUTES],
    ids=lambda load: load.table.name,
)
def test_accounts_do_not_touch_each_others_rows(merged: Any, connection: psycopg.Connection, load: Any) -> None:
    """A complete read of one account makes no row of another account absent."""

    def row(prefix: str, each: str) -> dict[str, Any]:
        named: dict[str, Any] = dict.fromkeys(("id", "_sync_id", "email", "name"), each)
        named |= {"key": f"{prefix}{each}", "list_type": "list", "updated_at": JAN}
        return {name: value for name, value in named.items() if name in load.schema}

    merged(load, row("1", "a"), row("1", "b"), integration_id="one")
    query = f"SELECT stored::text FROM {load.table.name} AS stored WHERE esp_integration_id = 'one' ORDER BY 1"
    before = connection.execute(query).fetchall()
    merged(load, row("2", "a"), row("2", "b"), integration_id="two")
    merged(load, row("2", "a"), integration_id="two")
    assert len(before) == 2
    assert connection.execute(query).fetchall() == before


def test_stored_keys_equal_those_that_sql_computes(account: Account, connection: psycopg.Connection) -> None:
    """SQL computes them from the row's own columns, as specified, and joins by them find the right rows."""
    ids = ["e1", "é😀", "a:b"]
    count = len(ids)
    nothing: list[Any] = [None] * count
    columns = {name: list(nothing) for name in Events._fields} | {"id": ids, "at": [1] * count}
    columns |= {"metric_id": ["m"] * count, "profile_id": ids, "message": ids, "flow": ids}
    made = event_frames(
        Events(**{**columns, "properties": [b"{}"] * count}), [0] * count, Metrics({}, {"m": "opens"}), "one"
    )
    persons = people([profile_row(each, properties={"n": "v"}) for each in ids], loads.MEMBERS, JAN, "one")
    with connection.transaction():
        merge(account, OPENS, made.tables["opens"])
        merge(account, loads.FLOW_CAMPAIGNS, made.flow_campaigns)
        merge(account, loads.MEMBERS, persons.members)
        merge(account, loads.MEMBER_ATTRIBUTES, persons.attributes)
    for table in ("opens", "campaigns", "members", "member_attributes"):
        recipe = "count(*) FILTER (WHERE key = md5(esp_source || ':' || esp_integration_id || ':' || id))"
        assert connection.execute(f"SELECT {recipe} FROM {table}").fetchone() == (count,), table
    joined = """
        SELECT o.id FROM opens AS o
        JOIN members AS m USING (member_key, esp_integration_id)
        JOIN campaigns AS c USING (campaign_key, esp_integration_id)
        WHERE o.id = m.id AND o.id = c.id AND o.automation_key = c.automation_key AND o.member_key = md5(m.id)
    """
    assert {each for (each,) in connection.execute(joined)} == set(ids)
    assert connection.execute("SELECT DISTINCT metric_key = md5('Klaviyo:one:m') FROM opens").fetchall() == [(True,)]


@pytest.mark.parametrize("load", [OPENS, loads.MEMBERS, loads.MEMBER_STUBS], ids=["events", "members", "stubs"])
def test_concurrent_merges_of_the_same_keys_do_not_deadlock(connect: Any, load: Any) -> None:
    """Each merge waits for the others, and every row is stored once."""
    keys = [f"k{each:05}" for each in range(8000)]
    barrier = threading.Barrier(4)

    def run(number: int) -> Merged:
        connection = connect()
        shuffled = sorted(keys, key=lambda key: hashlib.md5(f"{number}{key}".encode()).digest())
        new = [{**dict.fromkeys(load.schema), "key": key, "id": key, "email": str(number)} for key in shuffled]
        frame = pl.DataFrame(new, load.schema)
        if load.table.ordered_by:
            frame = frame.with_columns(event_at=EVENT_TIME)
        barrier.wait(PATIENCE)
        with connection.transaction():
            return merge(Account(connection, SCHEMA, "one"), load, frame)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(run, range(4)))
    assert sum(each.inserted for each in done) == len(keys)
    assert sum(each.inserted + each.updated + each.unchanged for each in done) == 4 * len(keys)
    assert rows(connect(), load.table.name, "key", "id") == [(key, key) for key in keys]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: f"{load.table.name}-{len(load.columns)}")
def test_every_load_runs_against_its_table(merged: Any, load: Load) -> None:
    """Postgres accepts the SQL of each load: for a new row, for the same row again, and for no rows."""
    key = {name: "k" for name in load.table.identity if name in load.schema}
    assert counts(merged(load, key)) == (1, 1, 0, 0)
    assert counts(merged(load, key)) == (1, 0, 0, 1)
    assert counts(merged(load)) == (0, 0, 0, 0)
