"""PERSONAL_DATA=hash and =drop: the warehouse holds no readable personal data, and keys and joins still work."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from io import StringIO
from typing import Any

import pytest

from benchmarks.recipes import recipes
from klaviyo_pg import schemas
from klaviyo_pg.catalogue import SPECIFIED, events, marts
from klaviyo_pg.catalogue.types import INTEGER
from klaviyo_pg.errors import BadSettings
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT
from tests.planted import ADDRESS, PHONE, SALT, STREET, plant
from tests.runs import Result, Warehouse

DAYS = 20
MODES: dict[str, dict[str, Any]] = {
    "keep": {"personal_data": "keep"},
    "hash": {"personal_data": "hash", "personal_data_salt": SALT},
    "drop": {"personal_data": "drop", "personal_data_salt": SALT},
}
SCHEMAS = [f"{dialect}_{mode}" for dialect in ("current", "legacy") for mode in MODES]
PROTECTED = [
    name if name == "current_hash" else pytest.param(name, marks=pytest.mark.slow)
    for name in SCHEMAS
    if not name.endswith("keep")
]
"""Schemas without readable personal data, of which one is tested by every run of the tests."""
Shown = Callable[[str], str]
"""Returns the log and results of the run that filled a schema."""
EVENTS = " UNION ALL ".join(
    f"SELECT email, member_key, campaign_key, automation_key, properties FROM {{0}}.{table.name}"
    for table in events.EVENT_TABLES
)
JOINS = {
    "events to members by address": f"SELECT count(*) FROM ({EVENTS}) e JOIN {{0}}.members m USING (email)",
    "events to members": f"SELECT count(*) FROM ({EVENTS}) e JOIN {{0}}.members m USING (member_key)",
    "events to campaigns": f"SELECT count(*) FROM ({EVENTS}) e JOIN {{0}}.campaigns c USING (campaign_key)",
    "events to automations": f"SELECT count(*) FROM ({EVENTS}) e JOIN {{0}}.automations a USING (automation_key)",
    "events to exclusions": f"SELECT count(*) FROM ({EVENTS}) e JOIN {{0}}.member_exclusions x USING (email)",
    "exclusions to members": "SELECT count(*) FROM {0}.member_exclusions x JOIN {0}.members m USING (email)",
    "exclusions to members by key": (
        "SELECT count(*) FROM {0}.member_exclusions x JOIN {0}.members m ON x._sync_id = md5(m.email)"
    ),
    "lists to members": "SELECT count(*) FROM {0}.member_lists l JOIN {0}.members m ON m.member_key = md5(l.member_id)",
    "attributes to members": "SELECT count(*) FROM {0}.member_attributes JOIN {0}.members USING (member_key)",
    "subscribed": "SELECT count(*) FROM {0}.member_lists WHERE is_subscribed",
}
BY_ADDRESS = {name for name, query in JOINS.items() if "email" in query.rpartition("JOIN")[2]}
KEY_VIOLATIONS = {
    "exclusions": "SELECT count(*) FROM {0}.member_exclusions WHERE _sync_id IS DISTINCT FROM md5(email)",
    "stg_exclusions": "SELECT count(*) FROM {0}.stg_member_exclusions WHERE _sync_id IS DISTINCT FROM md5(email)",
    "campaigns": f"SELECT count(*) FROM ({EVENTS}) e WHERE campaign_key IS DISTINCT FROM md5(properties->>'$message')",
    "flows": f"SELECT count(*) FROM ({EVENTS}) e WHERE automation_key IS DISTINCT FROM md5(properties->>'$flow')",
    "members": "SELECT count(*) FROM {0}.members WHERE member_key IS DISTINCT FROM md5(id)",
}


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account in which one person's address and number are in every field that might contain them."""
    with running(members=200, events=2_000, days=DAYS, until=MIDNIGHT) as box:
        hour_ago = int(MIDNIGHT.timestamp()) - 3600
        plant(box, hour_ago)
        unsubscribe_from_flow(box, hour_ago)
        yield box


def unsubscribe_from_flow(box: Sandbox, when: int) -> None:
    """Let a recipient of a flow's message unsubscribe by it, at a time in seconds."""
    sent = next(event for event in box.events() if event["flow"])
    box.add_events(
        {
            "metric": "Unsubscribed from Email Marketing",
            "timestamp": when,
            "profile_id": sent["profile_id"],
            "properties": {"$flow": sent["flow"], "$message": sent["message"]},
        }
    )


@contextmanager
def logged() -> Iterator[StringIO]:
    """Collect the log of the block, from INFO on."""
    log, root = StringIO(), logging.getLogger()
    handler, level = logging.StreamHandler(log), root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield log
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


def shown_by(ran: Result, log: StringIO) -> str:
    """Return the log, the sentences and the published artifacts of a run: everything outside the warehouse."""
    assert log.getvalue()
    return "\n".join([log.getvalue(), *ran.sentences, str(ran.published)])


def in_schema(warehouse: Warehouse, box: Sandbox, name: str) -> Warehouse:
    """Return the warehouse with the schema of this name, in its dialect and mode."""
    dialect, _, mode = name.partition("_")
    return warehouse.variant(
        klaviyo_dialect=dialect,
        warehouse_schema=name,
        klaviyo_account_id=box.state()["account"],
        first_sync_days=DAYS + 2,
        **MODES[mode],
    )


@pytest.fixture(scope="module")
def shown(warehouse: Warehouse, box: Sandbox) -> Shown:
    """Fill each schema when it is needed first, after the one with readable data that it is compared with."""

    @cache
    def shown(schema: str) -> str:
        if not schema.endswith("keep"):
            shown(schema.partition("_")[0] + "_keep")
        with logged() as log:
            ran = in_schema(warehouse, box, schema).daily()
        assert ran.exit_code == 0, (schema, ran.sentences)
        return shown_by(ran, log)

    shown("current_keep")
    return shown


def all_text(warehouse: Warehouse, schema: str) -> str:
    """Return the contents of all text and JSON columns of all tables."""
    columns = warehouse.rows(
        "SELECT table_schema, table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = ANY(%s) AND data_type IN ('text', 'jsonb', 'json', 'character varying')",
        schemas.both(schema),
    )
    assert len({table for _, table, _ in columns}) > len(SPECIFIED)
    values = (
        f'SELECT DISTINCT "{column}"::text FROM {found_in}."{table}" WHERE "{column}" IS NOT NULL'
        for found_in, table, column in columns
    )
    return "\n".join(warehouse.column(" UNION ALL ".join(values)))


def personal_data(warehouse: Warehouse, box: Sandbox) -> set[str]:
    """Return the addresses, phone numbers and streets of the account's people."""
    streets = warehouse.rows("SELECT DISTINCT split_part(address1, ',', 1) FROM current_keep.members")
    numbers = warehouse.rows("SELECT DISTINCT ltrim(phone_number, '+') FROM current_keep.members")
    addresses = {row["email"] for row in box.profiles()}
    return {ADDRESS, PHONE[1:], STREET, *addresses, *(text for (text,) in [*streets, *numbers])} - {None, ""}


@pytest.mark.parametrize("schema", PROTECTED)
def test_nothing_personal_is_readable(shown: Shown, warehouse: Warehouse, box: Sandbox, schema: str) -> None:
    """Neither the tables nor the log and results of the run contain an address, a number, a street or the salt."""
    seen = shown(schema)
    secrets, stored = personal_data(warehouse, box), all_text(warehouse, schema)
    kept = all_text(warehouse, "current_keep")
    assert len(secrets) > 250 and sum(text in kept for text in secrets) > 250  # the search works
    written = (stored + seen).lower()
    assert [text for text in (*secrets, SALT) if text.lower() in written] == []
    for (sender,) in warehouse.rows(f"SELECT DISTINCT from_email FROM {schema}.campaigns WHERE from_email <> ''"):
        stored = stored.replace(sender, "")  # the sender of a campaign is not a person
    assert "@" not in stored


@pytest.mark.parametrize("schema", ["current_hash", pytest.param("legacy_hash", marks=pytest.mark.slow)])
def test_personal_columns_are_hashes(shown: Shown, warehouse: Warehouse, schema: str) -> None:
    """With hash, personal columns hold SHA-256 of salt and text, so that an address in lower case can be looked up."""
    shown(schema)
    digest = warehouse.one("SELECT left(encode(sha256(convert_to(%s, 'UTF8')), 'hex'), 32)", SALT + ADDRESS.lower())
    assert warehouse.one(f"SELECT count(*) FROM {schema}.members WHERE email = %s", digest) == 1
    columns = ("email", "first_name", "last_name", "address1", "address2", "zip", "phone_number")
    for column in columns:
        odd = f"SELECT count(*) FROM {schema}.members WHERE {column} !~ '^[0-9a-f]{{32}}$'"
        assert (
            warehouse.one(odd)
            == 0
            < warehouse.one(f"SELECT count({column}) FROM {schema}.members") + (column == "address2")
        )
    assert warehouse.one(f"SELECT count(longitude) + count(latitude) FROM {schema}.members") == 0
    assert warehouse.one(f"SELECT count(city) FROM {schema}.members") > 0


@pytest.mark.slow
@pytest.mark.parametrize("schema", ["current_drop", "legacy_drop"])
def test_dropped_columns_are_empty(shown: Shown, warehouse: Warehouse, box: Sandbox, schema: str) -> None:
    """With drop, personal columns and properties are empty, and no hash of an address is stored anywhere."""
    shown(schema)
    stored = all_text(warehouse, schema)
    addresses = [row["email"] for row in box.profiles() if row["email"]]
    assert [each for each in addresses if sha256(f"{SALT}{each}".encode()).hexdigest()[:32] in stored] == []
    assert warehouse.one(f"SELECT count(email) + count(first_name) + count(zip) FROM {schema}.members") == 0
    assert warehouse.one(f"SELECT count(email) FROM {schema}.member_exclusions") == 0
    assert warehouse.one(f"SELECT count(value) FROM {schema}.member_attributes") == 0
    every = EVENTS.format(schema)
    assert warehouse.one(f"SELECT count(email) + count(properties) FROM ({every}) e") == 0
    assert warehouse.one(f"SELECT count(campaign_key) FROM ({every}) e") > 0


@pytest.mark.parametrize("schema", PROTECTED)
def test_joins_find_the_same_rows(shown: Shown, warehouse: Warehouse, schema: str) -> None:
    """Each join finds as many rows as with keep, apart from joins by address with drop."""
    shown(schema)
    dialect, _, mode = schema.partition("_")
    lost = {*BY_ADDRESS, "attributes to members"} if mode == "drop" else set()  # one name was an address
    lost |= {"subscribed"} if mode == "drop" else set()  # in the legacy dialect, no status is known without addresses
    for name in JOINS.keys() - lost:
        joined, expected = (warehouse.one(JOINS[name].format(each)) for each in (schema, f"{dialect}_keep"))
        assert joined == expected > 0, name


@pytest.mark.slow
def test_with_drop_everyone_counts_as_having_an_address(shown: Shown, warehouse: Warehouse) -> None:
    """In the current dialect. So people are subscribed who are not with keep, because they have no address."""
    query = """SELECT count(*) FILTER (WHERE l.is_subscribed), count(*) FILTER (
            WHERE l.left_reason IS NULL AND m.consent = 'SUBSCRIBED' AND m.email IS NULL
        ) FROM {0}.member_lists l JOIN {0}.members m ON m.member_key = md5(l.member_id)"""
    shown("current_drop")
    [(subscribed, without_address)] = warehouse.rows(query.format("current_keep"))
    [(with_drop, _)] = warehouse.rows(query.format("current_drop"))
    assert with_drop == subscribed + without_address > subscribed


@pytest.mark.parametrize(
    "schema", [*PROTECTED, *(pytest.param(f"{each}_keep", marks=pytest.mark.slow) for each in ("current", "legacy"))]
)
def test_rows_and_keys_are_complete(shown: Shown, warehouse: Warehouse, schema: str) -> None:
    """Each table has the same number of rows in every mode, and keys follow their recipes over the stored values."""
    shown(schema)
    dialect, _, mode = schema.partition("_")
    for table in (each.name for each in SPECIFIED if (mode, each.name) != ("drop", "member_attributes")):
        rows, expected = (warehouse.one(f"SELECT count(*) FROM {each}.{table}") for each in (schema, f"{dialect}_keep"))
        assert rows == expected, table
    assert warehouse.one(f"SELECT count(*) FROM {schema}.rejects") > 0
    for name in ["members"] if mode == "drop" else KEY_VIOLATIONS:
        assert warehouse.one(KEY_VIOLATIONS[name].format(schema)) == 0, name


@pytest.mark.parametrize("schema", PROTECTED)
def test_marts_count_the_same(shown: Shown, warehouse: Warehouse, schema: str) -> None:
    """A domain is readable with keep alone."""
    shown(schema)
    dialect, _, mode = schema.partition("_")
    for view in (marts.CAMPAIGN_PERFORMANCE, marts.FLOW_PERFORMANCE):
        numbers = [column.name for column in view.columns if column.type is INTEGER]
        sums = f"SELECT {', '.join(f'sum({name})' for name in numbers)} FROM {{}}.{view.name}"
        [stored], [kept] = (warehouse.rows(sums.format(each)) for each in (schema, f"{dialect}_keep"))
        assert stored == kept, view.name
        assert all(kept) or dialect == "legacy"
    domains = warehouse.column(f"SELECT DISTINCT domain FROM {schema}.deliverability WHERE domain IS NOT NULL")
    assert [domain for domain in domains if "." in domain] == []
    assert bool(domains) == (mode == "hash")


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 5, 6])
def test_recipes_count_the_same(shown: Shown, warehouse: Warehouse, number: int) -> None:
    """Without the properties of events, machines and bots are still no people."""
    shown("current_drop")
    [query] = (query for title, query in recipes() if title.startswith(f"{number}. "))
    whole = query.removesuffix("LIMIT 20")
    dropped, kept = (warehouse.rows(whole.replace("klaviyo.", f"{each}.")) for each in ("current_drop", "current_keep"))
    assert sorted(dropped, key=str) == sorted(kept, key=str) != []


@pytest.mark.slow
def test_a_backfill_is_protected(shown: Shown, warehouse: Warehouse, box: Sandbox) -> None:
    """A backfill, which spools to disk, stores the same hashes as the daily sync."""
    shown("current_hash")
    with logged() as log:
        ran = warehouse.backfill(
            datetime.now(UTC) - timedelta(days=DAYS + 2), warehouse_schema="history_hash", **MODES["hash"]
        )
    assert ran.exit_code == 0, ran.sentences
    written = (all_text(warehouse, "history_hash") + shown_by(ran, log)).lower()
    assert [text for text in personal_data(warehouse, box) if text.lower() in written] == []
    people = f"SELECT count(DISTINCT email) FROM ({EVENTS}) e JOIN {{0}}.members m USING (email)"
    assert warehouse.one(people.format("history_hash")) == warehouse.one(people.format("current_hash")) > 100


def test_a_rerun_changes_nothing(shown: Shown, warehouse: Warehouse, box: Sandbox) -> None:
    """A rerun protects the same data in the same way, so it changes no rows."""
    shown("current_hash")
    again = in_schema(warehouse, box, "current_hash").daily()
    assert again.exit_code == 0, again.sentences
    assert again.changed() == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "changes", "message"),
    [
        pytest.param("current_keep", MODES["hash"], "set it to keep, or set WAREHOUSE_SCHEMA", id="hash over rows"),
        pytest.param("current_hash", MODES["drop"], "set it to hash, or set WAREHOUSE_SCHEMA", id="drop over hashes"),
        pytest.param("current_hash", {"personal_data_salt": SALT + "!"}, "PERSONAL_DATA_SALT differs", id="salt"),
    ],
)
def test_another_mode_or_salt_is_refused(
    shown: Shown, warehouse: Warehouse, box: Sandbox, schema: str, changes: dict[str, Any], message: str
) -> None:
    """A run with another mode or salt than the stored rows stops before it begins, explains why, and is recorded."""
    shown(schema)
    runs = f"SELECT count(*) FROM {schema}.runs"
    before = warehouse.one(runs)
    with logged() as log, pytest.raises(BadSettings) as refused:
        in_schema(warehouse, box, schema).daily(**changes)
    assert refused.value.exit_code == 2
    assert message in str(refused.value) and "\n" not in str(refused.value)
    assert SALT not in log.getvalue() + str(refused.value)
    assert warehouse.one(runs) == before + 1
    last = f"SELECT state, message FROM {schema}.runs ORDER BY started_at DESC LIMIT 1"
    assert warehouse.rows(last) == [("failed", str(refused.value))]
