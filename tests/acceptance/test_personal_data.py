"""PERSONAL_DATA=hash and =drop: nothing that can be read of people is stored, and keys and joins work as before."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from klaviyo_pg.catalogue import SPECIFIED, events
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT, Ran, Warehouse, account

DAYS = 20
SALT = "a secret of this test"
ADDRESS, PHONE, STREET = "Planted.Person@example.com", "+15557654321", "12 Planted Street"
MODES = {
    "keep": {"PERSONAL_DATA": "keep"},
    "hash": {"PERSONAL_DATA": "hash", "PERSONAL_DATA_SALT": SALT},
    "drop": {"PERSONAL_DATA": "drop", "PERSONAL_DATA_SALT": SALT},
}
SCHEMAS = [f"{dialect}_{mode}" for dialect in ("current", "legacy") for mode in MODES]
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
    "who may be written to": "SELECT count(*) FROM {0}.member_lists WHERE is_subscribed",
}
BY_ADDRESS = {name for name, query in JOINS.items() if "email" in query.rpartition("JOIN")[2]}
BROKEN = {
    "exclusions": "SELECT count(*) FROM {0}.member_exclusions WHERE _sync_id IS DISTINCT FROM md5(email)",
    "stg_exclusions": "SELECT count(*) FROM {0}.stg_member_exclusions WHERE _sync_id IS DISTINCT FROM md5(email)",
    "campaigns": f"SELECT count(*) FROM ({EVENTS}) e WHERE campaign_key IS DISTINCT FROM md5(properties->>'$message')",
    "flows": f"SELECT count(*) FROM ({EVENTS}) e WHERE automation_key IS DISTINCT FROM md5(properties->>'$flow')",
    "members": "SELECT count(*) FROM {0}.members WHERE member_key IS DISTINCT FROM md5(id)",
}


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A small account, in which one person's address and number stand wherever somebody might write them."""
    with running(members=200, events=2_000, days=DAYS, until=MIDNIGHT) as box:
        plant(box, int(MIDNIGHT.timestamp()) - 3600)
        yield box


def plant(box: Sandbox, when: int) -> None:
    """Put the person into the account."""
    odd = {f"friend {ADDRESS}": True, "Phone": int(PHONE[1:]), "also": [{"deep": f"call {PHONE}"}]}
    person = box.add_profile(
        email=ADDRESS,
        phone_number=PHONE,
        first_name="Planted",
        properties=odd,
        location={"address1": STREET, "latitude": 12.345678, "longitude": 1.5},
    )
    metrics = {metric["name"]: metric["id"] for metric in box.state()["metrics"]}
    event = {"metric": metrics["Placed Order"], "timestamp": when, "profile_id": person, "properties": odd}
    subscribed = {**event, "metric": metrics["Subscribed to List"], "properties": {"List": "Staff", **odd}}
    box.add_events(
        event,
        {**event, "properties": {"ship to": {"street": STREET}, "$event_id": ADDRESS, "at": 12.345678}},
        {**event, "omit": ["id"]},
        {**event, "raw": {"timestamp": f"as {ADDRESS} said"}, "id": "unreadable"},
        subscribed,
    )


@pytest.fixture(scope="module")
def synced(warehouse: Warehouse, box: Sandbox) -> dict[str, Ran]:
    """The account in a schema for each dialect and mode."""
    with ThreadPoolExecutor(2) as pool:
        ran = dict(zip(SCHEMAS, pool.map(lambda name: sync(warehouse, box, name), SCHEMAS), strict=True))
    for name, each in ran.items():
        assert each.code == 0, (name, each.err[-3000:])
    return ran


def sync(warehouse: Warehouse, box: Sandbox, name: str, **changes: str) -> Ran:
    dialect, _, mode = name.partition("_")
    given = {**account(box), "FIRST_SYNC_DAYS": str(DAYS + 2), "KLAVIYO_ACCOUNT_ID": box.state()["account"]}
    return warehouse.sync(**{**given, "KLAVIYO_DIALECT": dialect, "WAREHOUSE_SCHEMA": name, **MODES[mode], **changes})


def everything(warehouse: Warehouse, schema: str) -> str:
    """All that is written in any column of any table, but for times and numbers."""
    columns = warehouse.rows(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = %s AND data_type IN ('text', 'jsonb', 'json', 'character varying')",
        schema,
    )
    assert len({table for table, _ in columns}) > len(SPECIFIED)
    found = (warehouse.rows(f'SELECT DISTINCT "{column}"::text FROM {schema}."{table}"') for table, column in columns)
    return "\n".join(text for rows in found for (text,) in rows if text)


def personal(warehouse: Warehouse, box: Sandbox) -> set[str]:
    """Addresses, numbers and streets of the account's people."""
    streets = warehouse.rows("SELECT DISTINCT split_part(address1, ',', 1) FROM current_keep.members")
    numbers = warehouse.rows("SELECT DISTINCT ltrim(phone_number, '+') FROM current_keep.members")
    told = {row["email"] for row in box.profiles()} | {text for (text,) in [*streets, *numbers]}
    return {ADDRESS, PHONE[1:], STREET, *told} - {None, ""}


@pytest.mark.parametrize("schema", [name for name in SCHEMAS if not name.endswith("keep")])
def test_nothing_can_be_read(synced: dict[str, Ran], warehouse: Warehouse, box: Sandbox, schema: str) -> None:
    """No column of any table holds an address, a number or a street, nor any run's output, nor is the salt shown."""
    wanted, found = personal(warehouse, box), everything(warehouse, schema)
    kept = everything(warehouse, "current_keep")
    assert len(wanted) > 250 and sum(text in kept for text in wanted) > 250  # the search finds what there is
    said = synced[schema].out + synced[schema].err
    assert [text for text in (*wanted, SALT) if text.lower() in (found + said).lower()] == []
    for (sender,) in warehouse.rows(f"SELECT DISTINCT from_email FROM {schema}.campaigns WHERE from_email <> ''"):
        found = found.replace(sender, "")  # of a campaign: no person
    assert "@" not in found


@pytest.mark.parametrize("schema", ["current_hash", "legacy_hash"])
def test_personal_columns_are_hashes(synced: dict[str, Ran], warehouse: Warehouse, schema: str) -> None:
    """SHA-256 of salt and text, by which an address can still be looked up; coordinates are gone."""
    digest = warehouse.one("SELECT left(encode(sha256(convert_to(%s, 'UTF8')), 'hex'), 32)", SALT + ADDRESS)
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


@pytest.mark.parametrize("schema", ["current_drop", "legacy_drop"])
def test_dropped_columns_are_empty(synced: dict[str, Ran], warehouse: Warehouse, box: Sandbox, schema: str) -> None:
    """There is no hash of an address either, and no properties."""
    found = everything(warehouse, schema)
    addresses = [row["email"] for row in box.profiles() if row["email"]]
    assert [each for each in addresses if sha256(f"{SALT}{each}".encode()).hexdigest()[:32] in found] == []
    assert warehouse.one(f"SELECT count(email) + count(first_name) + count(zip) FROM {schema}.members") == 0
    assert warehouse.one(f"SELECT count(email) FROM {schema}.member_exclusions") == 0
    assert warehouse.one(f"SELECT count(value) FROM {schema}.member_attributes") == 0
    every = EVENTS.format(schema)
    assert warehouse.one(f"SELECT count(email) + count(properties) FROM ({every}) e") == 0
    assert warehouse.one(f"SELECT count(campaign_key) FROM ({every}) e") > 0


@pytest.mark.parametrize("schema", [name for name in SCHEMAS if not name.endswith("keep")])
def test_joins_hold(synced: dict[str, Ran], warehouse: Warehouse, schema: str) -> None:
    """Every join has as many partners as where all is kept; by address only where there is one."""
    dialect, _, mode = schema.partition("_")
    lost = {*BY_ADDRESS, "attributes to members"} if mode == "drop" else set()  # one had an address for a name
    lost |= {"who may be written to"} if schema == "current_drop" else set()
    for name in JOINS.keys() - lost:
        found, expected = (warehouse.one(JOINS[name].format(each)) for each in (schema, f"{dialect}_keep"))
        assert found == expected > 0, name


@pytest.mark.parametrize("schema", SCHEMAS)
def test_rows_and_keys(synced: dict[str, Ran], warehouse: Warehouse, schema: str) -> None:
    """Each table has as many rows in every mode, and keys follow their recipes over what is stored."""
    dialect, _, mode = schema.partition("_")
    for table in (each.name for each in SPECIFIED if (mode, each.name) != ("drop", "member_attributes")):
        found, expected = (
            warehouse.one(f"SELECT count(*) FROM {each}.{table}") for each in (schema, f"{dialect}_keep")
        )
        assert found == expected, table
    assert warehouse.one(f"SELECT count(*) FROM {schema}.rejects") > 0
    for name in ["members"] if mode == "drop" else BROKEN:
        assert warehouse.one(BROKEN[name].format(schema)) == 0, name


def test_history_is_protected(synced: dict[str, Ran], warehouse: Warehouse, box: Sandbox) -> None:
    """A backfill, which keeps on disk what it reads, stores hashes as the daily sync does."""
    start = (datetime.now(UTC) - timedelta(days=DAYS + 2)).date().isoformat()
    settings = {**account(box), **MODES["hash"], "WAREHOUSE_SCHEMA": "history_hash"}
    ran = warehouse.run(["flows/backfill.py", "--start", start], settings)
    assert ran.code == 0, ran.err[-3000:]
    found = everything(warehouse, "history_hash") + ran.out + ran.err
    assert [text for text in personal(warehouse, box) if text.lower() in found.lower()] == []
    counted = f"SELECT count(DISTINCT email) FROM ({EVENTS}) e JOIN {{0}}.members m USING (email)"
    assert warehouse.one(counted.format("history_hash")) == warehouse.one(counted.format("current_hash")) > 100


def test_second_run_changes_nothing(synced: dict[str, Ran], warehouse: Warehouse, box: Sandbox) -> None:
    """The same data are protected in the same way again."""
    again = sync(warehouse, box, "current_hash")
    assert again.code == 0, again.err[-3000:]
    assert {name: counts[1:3] for name, counts in again.counts.items()} == dict.fromkeys(again.counts, (0, 0))


@pytest.mark.parametrize(
    ("schema", "changes", "says"),
    [
        pytest.param("current_keep", MODES["hash"], "set it to keep, or set WAREHOUSE_SCHEMA", id="hash over rows"),
        pytest.param("current_hash", MODES["drop"], "set it to hash, or set WAREHOUSE_SCHEMA", id="drop over hashes"),
        pytest.param("current_hash", {"PERSONAL_DATA_SALT": SALT + "!"}, "PERSONAL_DATA_SALT is not", id="salt"),
    ],
)
def test_a_change_is_refused(
    synced: dict[str, Ran], warehouse: Warehouse, box: Sandbox, schema: str, changes: dict[str, str], says: str
) -> None:
    """Rows of two modes, or of two salts, never stand side by side; one sentence says what to do."""
    runs = f"SELECT count(*) FROM {schema}.runs"
    before = warehouse.one(runs)
    ran = sync(warehouse, box, schema, **changes)
    assert ran.code == 2, ran.err[-3000:]
    assert says in ran.err and "Traceback" not in ran.err
    assert SALT not in ran.out + ran.err
    assert warehouse.one(runs) == before
