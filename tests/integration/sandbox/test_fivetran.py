"""The views with Fivetran's Klaviyo schema: what dbt_klaviyo reads of them, and the traps that it has met."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import psycopg
import pytest
import yaml
from psycopg.sql import SQL, Identifier

from klaviyo_pg.catalogue import fivetran
from klaviyo_pg.cli.views import views
from klaviyo_pg.errors import BadSettings, DatabaseUnusable, TablesInUse
from klaviyo_pg.postgres import accounts, schema_lock
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.patience import Patience
from klaviyo_pg.postgres.views import view_schema
from sandbox.launcher import Sandbox, running
from tests.driver import MIDNIGHT, ROOT
from tests.erasing import erase
from tests.runs import Warehouse, url_of

NAME = "klaviyo_fivetran"
EXAMPLE = ROOT / "examples" / "dbt"
TEXT, TIME, YES_NO, NUMBER = "text", "timestamp without time zone", "boolean", "double precision"
ALL = {"_fivetran_deleted": YES_NO, "_fivetran_synced": TIME, "id": TEXT}
OF_THING = {**ALL, "created": TIME, "updated": TIME, "name": TEXT}
READ = {  # the columns that dbt_klaviyo 1.3.1 and 1.4.1 read
    "campaign": {
        **OF_THING,
        **dict.fromkeys(("campaign_type", "email_template_id", "from_email", "from_name", "subject"), TEXT),
        **dict.fromkeys(("status", "status_id", "status_label"), TEXT),
        **dict.fromkeys(("send_time", "sent_at", "scheduled"), TIME),
        "archived": YES_NO,
    },
    "flow": {**OF_THING, "status": TEXT, "archived": YES_NO, "trigger_type": TEXT},
    "metric": {**OF_THING, "integration_id": TEXT, "integration_category": TEXT, "integration_name": TEXT},
    "person": {
        **ALL,
        **dict.fromkeys(("address_1", "address_2", "city", "country", "email", "first_name", "last_name"), TEXT),
        **dict.fromkeys(("organization", "phone_number", "region", "timezone", "title", "zip"), TEXT),
        **dict.fromkeys(("created", "updated", "last_event_date"), TIME),
        "latitude": NUMBER,
        "longitude": NUMBER,
    },
    "event": {
        **ALL,
        **dict.fromkeys(("_variation", "campaign_id", "flow_id", "flow_message_id", "metric_id"), TEXT),
        **dict.fromkeys(("person_id", "type", "uuid", "property_value"), TEXT),
        "datetime": TIME,
        "timestamp": TIME,
        "property_attribution": "jsonb",
    },
}
COLUMNS = """
SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = %s ORDER BY 1, 2
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running(members=30, events=600, days=20, until=MIDNIGHT) as box:
        yield box


@pytest.fixture(scope="module")
def synced(warehouse: Warehouse) -> Warehouse:
    """Return the warehouse after a daily run, with the views of its account."""
    assert warehouse.daily(first_sync_days=30).exit_code == 0
    with psycopg.connect(warehouse.url) as connection:
        view_schema.upgrade(account(connection), NAME)
        connection.execute("ANALYZE")  # as autovacuum does in a warehouse
    return warehouse


@pytest.fixture
def connection(synced: Warehouse) -> Iterator[psycopg.Connection]:
    """Return a connection in a transaction that is rolled back, whose names are those of the views."""
    with psycopg.connect(synced.url, options=f"-c search_path={NAME},klaviyo,klaviyo_internal") as connection:
        yield connection
        connection.rollback()


@pytest.fixture
def command(synced: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Return a function that runs `klaviyo-pg views --fivetran` in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", url_of(synced.url))
    monkeypatch.setenv("KLAVIYO_INTEGRATION", "default")

    def run(schema: str | None = None, integration: str | None = None, drop: bool = False, every: bool = False) -> int:
        return views(Namespace(integration=integration, schema=schema, drop=drop, all=every, fivetran=True))

    return run


def account(connection: psycopg.Connection, name: str = "default") -> Account:
    found = accounts.find(connection, "klaviyo", name)
    assert found is not None
    return Account(connection, "klaviyo", found.integration_id)


def rows(connection: psycopg.Connection, query: str, *values: object) -> list[tuple[Any, ...]]:
    return connection.execute(query, values or None).fetchall()


def one(connection: psycopg.Connection, query: str) -> Any:
    [[value]] = rows(connection, query)
    return value


def columns(connection: psycopg.Connection, name: str = NAME) -> dict[str, dict[str, str]]:
    """Return the types of the columns, by view."""
    found: dict[str, dict[str, str]] = {}
    for view, column, type_ in rows(connection, COLUMNS, name):
        found.setdefault(view, {})[column] = type_
    return found


def macro(name: str, *arguments: str) -> str:
    """Return what a macro of the example project renders."""
    text = "".join(file.read_text() for file in sorted((EXAMPLE / "macros").glob("*.sql")))
    types = {"type_string": lambda: "text", "type_numeric": lambda: "numeric(28,6)"}
    called = f"{{{{ {name}({', '.join(map(repr, arguments))}) }}}}"
    return str(jinja2.Template(text + called).render(dbt=types)).strip()


def test_the_views_have_the_columns_that_the_package_reads(connection: psycopg.Connection) -> None:
    """And each column has a comment, and the type that the catalogue says."""
    found = columns(connection)
    assert {view: {each: found[view].get(each) for each in read} for view, read in READ.items()} == READ
    described = {view.name: {each.name: each.type.sql for each in view.columns} for view in fivetran.VIEWS}
    described["event"][fivetran.ATTRIBUTION.name] = fivetran.ATTRIBUTION.type.sql
    assert found == described
    uncommented = "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND col_description(attrelid, attnum)"
    assert [rows(connection, f"{uncommented} IS NULL AND attnum > 0", view) for view in described] == [[]] * 5


@pytest.mark.parametrize(
    ("view", "stored"),
    [
        pytest.param("campaign", "campaigns WHERE automation_key IS NULL AND NOT is_placeholder", id="campaigns"),
        pytest.param("flow", "automations WHERE NOT is_placeholder", id="flows"),
        pytest.param("metric", "metrics", id="metrics"),
        pytest.param("person", "members", id="people"),
        pytest.param("event", "klaviyo_events", id="events"),
    ],
)
def test_each_stored_row_is_there_once(connection: psycopg.Connection, view: str, stored: str) -> None:
    """No ID is null, and neither is the person of an event, by which incremental models choose what to renew."""
    tables = ("sends", "bounces", "opens", "clicks", "spams", "unsubscribes", "klaviyo.events")
    source = stored.replace("klaviyo_events", f"({' UNION ALL '.join(f'SELECT id FROM {each}' for each in tables)}) e")
    assert one(connection, f"SELECT count(*) FROM {source}") == one(
        connection, f"SELECT count(DISTINCT id) FROM {view}"
    )
    assert one(connection, f"SELECT count(*) FROM {view}") == one(connection, f"SELECT count(id) FROM {view}") > 0
    assert one(connection, "SELECT count(*) FROM event WHERE person_id IS NULL OR metric_id IS NULL") == 0


def test_revenue_needs_the_macros_of_the_example(connection: psycopg.Connection) -> None:
    """With them, revenue is the sum of the stored values, negative ones included, up to what numeric(28,6) can hold."""
    project = yaml.safe_load((EXAMPLE / "dbt_project.yml").read_text())
    for each in project["dispatch"]:
        assert each["search_order"] == [project["name"], each["macro_namespace"]]
    value = macro("postgres__remove_string_from_numeric", "property_value")
    amount = macro("postgres__try_cast", f"({value})", "numeric")
    seen = one(connection, f"SELECT sum({amount}) FROM event WHERE type = 'Placed Order'")
    kept = "SELECT sum(round(value, 6)) FROM klaviyo.events WHERE event_name = 'Placed Order' AND abs(value) < 1e21"
    assert seen == one(connection, kept) > 0
    assert one(connection, f"SELECT {amount} FROM (VALUES ('-19.5')) v (property_value)") == -19.5


def test_an_erased_person_is_nowhere(connection: psycopg.Connection) -> None:
    """Their events have an unknown person and the same IDs, and look new, so that incremental models rebuild them."""
    buyer = (
        "SELECT p.id, p.email FROM event e JOIN person p ON p.id = e.person_id WHERE property_attribution IS NOT NULL"
    )
    [(person, address)] = rows(connection, f"{buyer} AND email IS NOT NULL ORDER BY 1 LIMIT 1")
    key = "SELECT min(e.key) FROM klaviyo.events e JOIN members m USING (member_key) WHERE m.id = %s"
    connection.execute(f"UPDATE klaviyo.events SET id = 'Maria' WHERE key = ({key})", [person])
    events = dict(rows(connection, "SELECT id, _fivetran_synced FROM event WHERE person_id = %s", person))
    erase(account(connection), address, [person])
    for view in READ:
        named = SQL("SELECT count(*) FROM {0} AS row WHERE row::text ILIKE %s OR row::text LIKE %s")
        found = connection.execute(named.format(Identifier(view)), [f"%{address}%", f"%{person}%"])
        assert found.fetchone() == (0,), view
    after = rows(connection, "SELECT id, person_id, _fivetran_synced FROM event WHERE id = ANY(%s)", list(events))
    assert {each for each, who, at in after if who == "unknown" and at > events[each]} == set(events) != set()


def test_what_is_attributed_to_an_erased_event_keeps_its_message(connection: psycopg.Connection) -> None:
    """The package looks the message up in the other event. Where it is not stored, the message is the event's own."""
    attributed = "SELECT id, property_attribution ->> '$attributed_event_id' FROM event WHERE type = 'Placed Order'"
    pairs = rows(connection, f"{attributed} AND property_attribution IS NOT NULL")
    touches = "SELECT id, coalesce(campaign_id, flow_id) FROM event WHERE id = ANY(%s)"
    of_touch = dict(rows(connection, touches, [touch for _, touch in pairs]))
    assert len(pairs) == one(connection, "SELECT sum(conversions) FROM attributed_revenue WHERE metric_name ~ 'Placed'")
    assert set(rows(connection, touches, [event for event, _ in pairs])) == {(event, None) for event, _ in pairs}
    connection.execute("UPDATE event_attributions SET attributed_event_key = NULL")
    own = dict(rows(connection, touches, [event for event, _ in pairs]))
    assert own == {event: of_touch[touch] for event, touch in pairs} != {}
    assert one(connection, "SELECT count(property_attribution) FROM event") == 0


def test_properties_have_the_attribution_where_none_is_stored(connection: psycopg.Connection) -> None:
    """It has the ID that the view of events has. A stored one, also of an event that is gone, counts instead."""
    in_properties = '{"$attribution": {"$attributed_event_id": "Maria", "$flow": "F1"}}'
    connection.execute("UPDATE klaviyo.events SET properties = properties || %s::jsonb", [in_properties])
    connection.execute("UPDATE event_attributions SET attributed_event_key = NULL")
    found = rows(connection, "SELECT DISTINCT property_attribution FROM event WHERE type = 'Placed Order' ORDER BY 1")
    digest = one(connection, "SELECT md5('Maria')")
    assert found == [({"$attributed_event_id": digest, "$flow": "F1"},), (None,)]


def test_attributions_are_a_column_only_where_there_are_some(connection: psycopg.Connection) -> None:
    """The package credits no order if the column is there without attributions."""
    connection.execute("DELETE FROM event_attributions")
    done = view_schema.upgrade(account(connection), NAME)
    assert (done.changed, done.recreated, done.empty) == (["event"], ["event"], ["event_attributions"])
    assert "property_attribution" not in columns(connection)["event"]


def test_views_of_an_earlier_version_are_changed(connection: psycopg.Connection) -> None:
    """A view that only gains columns keeps what others depend on, and the access that was granted."""
    connection.execute("DROP VIEW metric, flow")
    connection.execute(f"CREATE VIEW {NAME}.metric AS SELECT id, name FROM metrics")
    connection.execute("CREATE VIEW public.of_metric AS SELECT * FROM metric")
    connection.execute(f"CREATE VIEW {NAME}.flow AS SELECT 1 AS id")
    for view in ("metric", "flow"):
        connection.execute(
            SQL("COMMENT ON VIEW {} IS {}").format(
                Identifier(NAME, view), one(connection, "SELECT obj_description('campaign'::regclass)")
            )
        )
    done = view_schema.upgrade(account(connection), NAME)
    assert (done.changed, done.recreated) == (["flow", "metric"], ["flow"])
    assert set(columns(connection)) == set(READ)


def test_events_have_the_names_by_which_the_package_counts(connection: psycopg.Connection) -> None:
    """A metric has the same name as its events."""
    names = {name for (name,) in rows(connection, "SELECT name FROM klaviyo.metrics")}
    types = {name for (name,) in rows(connection, "SELECT DISTINCT type FROM event")}
    renamed = {new: old for new, old in fivetran.OLD_NAMES.items() if new in names}
    assert {"Received SMS", "Clicked SMS", "Unsubscribed"} <= set(renamed.values()) <= types
    assert not types & set(renamed)
    assert not rows(connection, "SELECT FROM event e JOIN metric m ON m.id = e.metric_id WHERE m.name <> e.type")


def test_the_day_of_an_event_is_the_same_in_each_time_zone(connection: psycopg.Connection) -> None:
    hours = (
        "SELECT date_trunc('hour', timestamp), count(*) FROM event WHERE type = 'Opened Email' GROUP BY 1 ORDER BY 1"
    )
    stored = "SELECT date_trunc('hour', event_at AT TIME ZONE 'UTC'), count(*) FROM opens GROUP BY 1 ORDER BY 1"
    connection.execute("SET TIME ZONE 'America/New_York'")
    assert rows(connection, hours) == rows(connection, stored) != []


def test_dimensions_are_as_fresh_as_the_last_read(connection: psycopg.Connection) -> None:
    """Not as old as the last change: dbt's check of freshness fails after four days."""
    later = "SELECT now()::timestamp(0) + interval '30 days'"
    connection.execute(f"UPDATE watermarks SET watermark = ({later}) AT TIME ZONE 'UTC'")
    for view in ("campaign", "flow", "metric", "person"):
        assert one(connection, f"SELECT min(_fivetran_synced) FROM {view}") == one(connection, later)


def test_a_campaign_that_is_only_planned_has_a_time_but_was_not_sent(connection: psycopg.Connection) -> None:
    times = "SELECT DISTINCT status, send_time IS NOT NULL, sent_at IS NOT NULL FROM campaign"
    planned_and_sent = {(status, *are_set) for status, *are_set in rows(connection, times)}
    assert {each for each in planned_and_sent if each[0] in ("sent", "scheduled", "draft")} == {
        ("sent", True, True),
        ("scheduled", True, False),
        ("draft", False, False),
    }


def test_messages_resolve_to_their_campaign_or_flow(connection: psycopg.Connection) -> None:
    """$message is that of a campaign, of one of its messages, or of a message of a flow. No event is of both."""
    resolved = "SELECT count(*) FROM event e JOIN campaign c ON c.id = e.campaign_id"
    known = "SELECT count(*) FROM sends JOIN messages m ON m.message_key = sends.campaign_key"
    sent = one(connection, f"{resolved} WHERE e.type = 'Received Email'")
    assert sent == one(connection, f"{known} WHERE m.campaign_id IS NOT NULL AND NOT m.is_placeholder") > 0
    other = f"{resolved} WHERE e.properties ->> '$message' <> e.campaign_id"
    assert one(connection, other) > 0
    flows = "SELECT count(*) FROM event e JOIN flow f ON f.id = e.flow_id WHERE e.flow_message_id IS NOT NULL"
    listed = "SELECT count(*) FROM event WHERE properties ->> '$flow' IN (SELECT id FROM flow)"
    assert one(connection, flows) == one(connection, listed) > 0
    assert one(connection, "SELECT count(*) FROM event WHERE campaign_id IS NOT NULL AND flow_id IS NOT NULL") == 0


def test_the_command_writes_nothing_if_nothing_changed(
    command: Callable[..., int], synced: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    state = "SELECT oid, xmin::text FROM pg_class WHERE relnamespace = 'klaviyo_fivetran'::regnamespace ORDER BY 1"
    comments = "SELECT xmin::text FROM pg_description ORDER BY objoid, objsubid"
    before = synced.rows(state), synced.rows(comments)
    assert command() == 0
    assert capsys.readouterr().out == (
        "Already up to date: campaign, flow, metric, person, event in the schema klaviyo_fivetran, for default.\n"
    )
    assert (synced.rows(state), synced.rows(comments)) == before


def test_the_command_waits_for_readers_and_gives_up(
    command: Callable[..., int],
    connection: psycopg.Connection,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schema_lock, "PATIENCE", Patience("20ms", 0.01, 3))
    connection.execute("SELECT FROM flow")
    used = f"Other sessions use tables of the warehouse (pid {connection.info.backend_pid}: flow)"
    with pytest.raises(TablesInUse) as error:
        command(drop=True)
    assert str(error.value) == f"{used}. End them, then rerun to resume."
    assert capsys.readouterr().out == f"{used}; trying again\n" * 2


def test_each_account_has_its_own_schema(connection: psycopg.Connection) -> None:
    """The views of an account without rows are empty, and their comments say so. Dropping them drops nothing else."""
    accounts.register(connection, "klaviyo", "other", "OTHER")
    other = account(connection, "other")
    with pytest.raises(BadSettings, match=r"has the views of another account\. Choose another name: --schema"):
        view_schema.upgrade(other, NAME)
    assert view_schema.upgrade(other, "of_other").changed == list(READ)
    assert [one(connection, f"SELECT count(*) FROM of_other.{view}") for view in READ] == [0] * 5
    assert "no campaigns of this account" in one(connection, "SELECT obj_description('of_other.campaign'::regclass)")
    with pytest.raises(BadSettings, match="has the views of another account"):
        view_schema.drop(account(connection), "of_other")
    assert view_schema.drop(other, "of_other")
    assert (columns(connection, "of_other"), set(columns(connection))) == ({}, set(READ))
    assert one(connection, "SELECT to_regnamespace('of_other')") is None


def test_all_accounts_have_schemas_with_their_names(command: Callable[..., int], synced: Warehouse) -> None:
    """Dropping all leaves the schemas of other names."""
    with psycopg.connect(synced.url) as connection:
        accounts.register(connection, "klaviyo", "shop-DE", "OTHER")
    schemas = "SELECT nspname FROM pg_namespace WHERE nspname LIKE '%%fivetran%%' ORDER BY 1"
    try:
        assert command(every=True) == 0
        assert synced.column(schemas) == [NAME, "klaviyo_fivetran_default", "klaviyo_fivetran_shop_de"]
        assert command(schema="fivetran_{account}", integration="shop-DE") == 0
        assert "fivetran_shop_de" in synced.column(schemas)
        assert command(every=True, drop=True) == 0
        assert synced.column(schemas) == ["fivetran_shop_de", NAME]
        assert command(schema="fivetran_{account}", every=True, drop=True) == 0  # although one account has none
        with pytest.raises(BadSettings, match=r"^Nothing was dropped: the schema fivetran_default has no views of"):
            command(schema="fivetran_{account}", every=True, drop=True)
    finally:
        synced.execute("DELETE FROM integrations WHERE name = 'shop-DE'")


def test_two_accounts_with_the_same_letters_do_not_share_a_schema(
    command: Callable[..., int], synced: Warehouse
) -> None:
    with psycopg.connect(synced.url) as connection:
        for name in ("shop-DE", "shop_de"):
            accounts.register(connection, "klaviyo", name, name)
    try:
        with pytest.raises(BadSettings, match="klaviyo_fivetran_shop_de has the views of another account"):
            command(every=True)
        assert command(every=True, drop=True) == 0
    finally:
        synced.execute("DELETE FROM integrations WHERE name LIKE 'shop%%'")


def test_objects_of_others_are_neither_replaced_nor_dropped(connection: psycopg.Connection) -> None:
    """A schema with anything else is refused, and so is dropping a view that another one depends on."""
    mine = account(connection)
    connection.execute("CREATE SCHEMA theirs")
    for kind, rest in {
        "TABLE": "(id text)",
        "DOMAIN": "AS text",
        "TYPE": "AS ENUM ('new')",
        "FUNCTION": "() RETURNS text LANGUAGE sql AS 'SELECT NULL::text'",
    }.items():
        connection.execute(f"CREATE {kind} theirs.event {rest}")
        for change in (view_schema.upgrade, view_schema.drop):
            with pytest.raises(BadSettings, match=r"contains event, which klaviyo-pg views did not create\. Choose a"):
                change(mine, "theirs")
        connection.execute(f"DROP {kind} theirs.event")
    view_schema.upgrade(mine, "theirs")
    assert view_schema.drop(mine, "theirs")
    assert one(connection, "SELECT to_regnamespace('theirs')") == "theirs"
    connection.execute("CREATE VIEW public.stg_flow AS SELECT * FROM flow")
    with pytest.raises(DatabaseUnusable, match=r"such as view public\.stg_flow\. Drop them first"):
        view_schema.drop(mine, NAME)


def test_a_warehouse_of_an_earlier_version_is_refused(connection: psycopg.Connection) -> None:
    connection.execute("ALTER TABLE event_attributions RENAME TO earlier")
    with pytest.raises(DatabaseUnusable, match=r"it lacks klaviyo\.event_attributions\.\w+\. Run klaviyo-pg upgrade"):
        view_schema.upgrade(account(connection), NAME)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        pytest.param({"integration": "x"}, r"account x in .* Choose another --integration: default\.", id="no account"),
        pytest.param({"schema": "one", "every": True}, "--schema needs {account}", id="one schema for all"),
        pytest.param({"schema": " "}, "--schema must not be blank", id="blank"),
        pytest.param({"schema": "x" * 64}, "longer than the 63 bytes", id="too long"),
        pytest.param({"schema": "my%views"}, "must not contain a percent sign", id="percent sign"),
        pytest.param({"schema": "pg_views"}, "a name that Postgres reserves", id="reserved"),
        pytest.param({"schema": "klaviyo"}, "is a schema of the warehouse itself", id="the warehouse"),
        pytest.param({"schema": "klaviyo_internal"}, "is a schema of the warehouse itself", id="internal tables"),
        pytest.param({"schema": "none", "drop": True}, "the schema none has no views of default", id="nothing to drop"),
    ],
)
def test_a_mistake_is_explained(command: Callable[..., int], arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadSettings, match=sentence):
        command(**arguments)


def test_the_analyses_name_models_of_the_package() -> None:
    """The package itself is not installed here. docs/dbt.md says how they were run."""
    models = {"klaviyo__campaigns", "klaviyo__flows", "klaviyo__events"}
    texts = [file.read_text() for file in sorted((EXAMPLE / "analyses").glob("*.sql"))]
    assert {jinja2.Template(text).render(ref=models.remove) and "" for text in texts} == {""}
    assert not models
