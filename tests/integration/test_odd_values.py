"""Odd values in events, compared with what Postgres itself makes of them.

`ODD_VALUES=10000` in the environment sets the number of values that are tried.
"""

import json
import os
from collections.abc import Callable
from typing import NamedTuple

import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.load import merge
from tests.any_page import ACCOUNT, lost, page, stored_events

SCHEMA = "klaviyo"
_ON_A_PAGE = 50
_PAGES = max(1, int(os.environ.get("ODD_VALUES", "300")) // _ON_A_PAGE)


class Number(NamedTuple):
    """A number as the API writes it, and as JSON that the warehouse should have."""

    sent: str
    stored: str


piece = st.sampled_from(
    [
        *(
            "\0",
            "\x01",
            "\x02",
            "\x08",
            "\t",
            "\n",
            "\r",
            "\x0b",
            "\x1b[2J",
            "\x7f",
            "\x85",
            "\u2028",
            "\u2029",
            "\ufeff",
        ),
        *(
            "\\",
            "\\\\",
            "\\N",
            "\\.",
            "\\u0000",
            "\\\\u0000",
            "\\x00",
            "u0000",
            "\\ud800",
            '"',
            '""',
            "'",
            ",",
            "{",
            "}",
        ),
        *("", " ", "NULL", "null", "x", "ü", "e\u0301", "\ufffd", "\U0001f600", "\u202e", "$$", "%s"),
        *("\ud800", "\udfff", "\udbff\udbff", "\udc00\ud800"),
    ]
)
text = st.one_of(
    st.lists(piece, max_size=6).map("".join),
    st.text(st.characters(), max_size=8),
    st.sampled_from(["k" * 65_536, "\\" * 9_999, "\u2028" * 9_999, '"' * 999]),
)
digits = st.one_of(
    st.integers(2**53 - 2, 2**70),
    st.integers(-(2**70), -(2**53)),
    st.sampled_from(["0", "-0", "-0.0", "1e400", "1E-40", "1e+9999", "9" * 5000, "0." + "3" * 500, "12.50"]),
).map(lambda each: Number(str(each), str(each)))
too_large = st.sampled_from(["1e999999", "-1E+200000"]).map(lambda each: Number(each, f'"{each}"'))
constants = st.sampled_from(["true", "false", "null"]).map(lambda each: Number(each, each))
invalid = st.sampled_from(["NaN", "-Infinity", "007", "+1"]).map(lambda each: Number(each, f'"{each}"'))
value = st.recursive(
    st.one_of(text, text, digits, constants, too_large, invalid),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(st.tuples(text, inner), max_size=3).map(lambda pairs: (pairs,))
    ),
    max_leaves=6,
)


def written(each: object, as_text: Callable[[str], str], is_sent: bool) -> str:
    """Write a value as JSON: a list of values, or a list of pairs in a tuple, which is an object."""
    if isinstance(each, Number):
        return each.sent if is_sent else each.stored
    if isinstance(each, str):
        return json.dumps(as_text(each))
    if isinstance(each, tuple):
        members = (f"{json.dumps(as_text(name))}:{written(inner, as_text, is_sent)}" for name, inner in each[0])
        return "{" + ",".join(members) + "}"
    assert isinstance(each, list)
    return "[" + ",".join(written(inner, as_text, is_sent) for inner in each) + "]"


def storable(each: str) -> str:
    """Return a text as the warehouse should have it: U+FFFD for half of a surrogate pair, and no NUL."""
    return each.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").replace("\0", "")


@settings(max_examples=_PAGES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(value, text), min_size=_ON_A_PAGE, max_size=_ON_A_PAGE))
def test_values_are_stored_as_postgres_reads_them(
    connection: psycopg.Connection, values: list[tuple[object, str]]
) -> None:
    """Each event is stored, whatever is in it. Postgres parses the expected document with no code of this project."""
    sent = [_event(number, each, currency) for number, (each, currency) in enumerate(values)]
    stored, _ = stored_events("current", page(sent))
    account = Account(connection, SCHEMA, ACCOUNT)
    with connection.transaction():
        refused = [row for load, frame in stored.frames for row in merge(account, load, frame).unstorable]
        assert not lost(stored.rejects) and all(row.replaced for row in refused)
        assert _different(connection, values) == []
        connection.execute("TRUNCATE events")


def _event(number: int, each: object, currency: str) -> bytes:
    properties = f'{{"$value_currency":{json.dumps(currency)},"v":{written(each, str, is_sent=True)}}}'
    return f'{{"id":"{number}","attributes":{{"timestamp":5,"event_properties":{properties}}}}}'.encode()


def _different(connection: psycopg.Connection, values: list[tuple[object, str]]) -> list[tuple[object, ...]]:
    """Return what was sent and stored of the events that are missing or differ from what Postgres makes of them."""
    cursor = connection.cursor()
    cursor.execute("CREATE TEMP TABLE expected (id text, value_currency text, properties jsonb) ON COMMIT DROP")
    cursor.executemany(
        "INSERT INTO expected"
        " VALUES (%s, nullif(%s, ''), jsonb_build_object('$value_currency', %s::text, 'v', %s::jsonb))",
        [
            (str(number), storable(currency), storable(currency), written(each, storable, is_sent=False))
            for number, (each, currency) in enumerate(values)
        ],
    )
    rows = cursor.execute(
        "SELECT id, e.properties, s.properties, e.value_currency, s.value_currency FROM expected e"
        " LEFT JOIN events s USING (id)"
        " WHERE (e.value_currency, e.properties) IS DISTINCT FROM (s.value_currency, s.properties)"
    )
    return rows.fetchall()
