"""Generated pages: Postgres stores each row or returns it as a reject."""

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klaviyo_pg.catalogue import loads
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.load import merge
from tests.any_page import ACCOUNT, check, lost, stored_events

SCHEMA = "klaviyo"
FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
ODD = [
    *(
        '"x"',
        "null",
        "[]",
        "5",
        '""',
        '"\\u0000"',
        '"\\u0001"',
        '"\\t\\n\\r\\"\\\\"',
        '"\\ud83d\\ude00"',
        "1e400",
        "1e999999",
    ),
    *(
        "9" * 5000,
        "[" * 900 + "]" * 900,
        "[" * 5000 + "]" * 5000,
        '{"a":1,"a":2}',
        '"' + "x" * 100_000 + '"',
        "NaN",
        '"\\ud800"',
    ),
    *('{"' + "k" * 100_000 + '":1}', '"\\u2028"', '"2026-07-01"', "true", "-0.0"),
]
odd = st.sampled_from(ODD)
an_id = st.one_of(
    st.sampled_from([*(f'"e{number}"' for number in range(9)), '"' + "e" * 10_000 + '"', '"\\u0001"', '"\\\\."']), odd
)
second = st.sampled_from(["5", "-62135596800", "253402300799", "253402300800", "1782864000"])
event = st.builds(
    '{{"id":{},"attributes":{{"timestamp":{},"event_properties":{{"$message":{},"$flow":{},"Subject":{},"$value":{},"x":{}}}}},'
    '"relationships":{{"profile":{{"data":{{"id":{}}}}},"metric":{{"data":{{"id":"m1"}}}}}}}}'.format,
    an_id, second, odd, odd, odd, odd, odd, an_id,
)  # fmt: skip
person = st.builds(
    '{{"id":{},"attributes":{{"email":{},"created":{},"location":{{"latitude":{}}},"properties":{{"a":{},{}:1}}}}}}'.format,
    an_id, odd, odd, odd, odd, odd.filter(lambda text: text.startswith('"')),
)  # fmt: skip


@FEW
@given(st.lists(event, min_size=1, max_size=8), st.lists(person, max_size=4))
def test_each_record_is_stored_or_rejected(
    connection: psycopg.Connection, events: list[str], people: list[str]
) -> None:
    """The rows in the tables, the rows that Postgres refused and the rejects add up to the page."""
    body = f'{{"data":[{",".join(events)}],"included":[{",".join(people)}]}}'.encode()
    stored, accounted = stored_events("current", body)
    assert accounted == len(events) + len(people)
    check(stored)
    account = Account(connection, SCHEMA, ACCOUNT)
    with connection.transaction():
        for load, frame in stored.frames:
            merged = merge(account, load, frame)
            assert merged.rows == merged.inserted + merged.updated + merged.unchanged + len(lost(merged.unstorable))
            if load.table.name in loads.EVENTS:
                refused = len(lost(merged.unstorable))
                keys = frame["key"].to_list()
                kept = connection.execute(f"SELECT count(*) FROM {load.table.name} WHERE key = ANY(%s)", [keys])
                assert (frame.height, *(kept.fetchone() or ())) == (merged.rows, merged.rows - refused)
        connection.execute("TRUNCATE " + ",".join({load.table.name for load, _ in stored.frames}))


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        pytest.param("[" * 900 + "]" * 900, None, id="900 levels"),
        pytest.param("[" * 3000 + "]" * 3000, "[" * 497 + "null" + "]" * 497, id="3,000 levels"),
        pytest.param("1e400", None, id="more than a float holds"),
        pytest.param("1e999999", '"1e999999"', id="more than a numeric holds"),
        pytest.param("NaN", '"NaN"', id="not a number"),
        pytest.param('"\\ud800"', '"\N{REPLACEMENT CHARACTER}"', id="a lone surrogate"),
        pytest.param('"\\\\ud800"', None, id="an escaped backslash before ud800"),
    ],
)
def test_an_odd_event_is_stored(connection: psycopg.Connection, properties: str, expected: str | None) -> None:
    """Values that jsonb cannot hold are replaced, and the original is kept. The other event is stored as well."""
    odd_event = '{"id":"odd","attributes":{"timestamp":5,"event_properties":{"a":' + properties + "}}}"
    body = f'{{"data":[{{"id":"good","attributes":{{"timestamp":5}}}},{odd_event}]}}'.encode()
    stored, _ = stored_events("current", body)
    account = Account(connection, SCHEMA, ACCOUNT)
    with connection.transaction():
        refused = [row for load, frame in stored.frames for row in merge(account, load, frame).unstorable]
    kept = connection.execute(
        "SELECT id, properties = %s::jsonb FROM events ORDER BY id DESC", ['{"a":' + (expected or properties) + "}"]
    )
    assert kept.fetchall() == [("odd", True), ("good", False)]
    replaced = [each.replaced for each in refused] + [each.replaced for each in stored.rejects]
    assert replaced == ([] if expected is None else [1])
