"""Rereading: the next daily run reads tables in full again, compares everything, and writes what differs."""

from collections.abc import Sequence

import pytest

from klaviyo_pg.errors import BadSettings, MissingScope
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.rows import Consent, Group, MappedMetric, Membership, Report, Template
from pipeline.rereading import Reread, read_again, requests_for, streams_to_read
from pipeline.runs import transact
from tests.fake_requests import Request
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import Warehouse, days_ago
from tests.runs import Result, positions

SETTINGS = {"tables": ("default", "campaign_reports", "flow_reports"), "report_days": 4}


@pytest.fixture
def loaded(warehouse: Warehouse, shop: FakeAccount) -> Warehouse:
    """Return the warehouse of an account with content, consents and reports, after two daily runs."""
    shop.described.update(timezone="Etc/UTC")
    shop.mapped_metrics.append(MappedMetric("revenue", "ORDER", None, LONG_AGO))
    shop.reports["campaign_reports"] = [Report(days_ago(2).date(), "C1", "M", "email", None, "", {"opens": 1})]
    shop.templates += [Template(f"T{at}", f"Template {at}", "CODE", "<p>", updated=days_ago(9)) for at in range(12)]
    for person in ("P0", "P1"):
        shop.add_person(person, days_ago(20), properties={"size": "M"}, consents=(Consent("email", "SUBSCRIBED"),))
    return warehouse.variant(**SETTINGS)


def reread(warehouse: Warehouse, run: Result, *tables: str) -> list[Reread]:
    """Let the next daily run read tables again, and return what is printed about it."""
    settings = warehouse.configured()
    with warehouse.open() as session:
        streams = streams_to_read(tables, settings, session.dialect)

        def work(account: Account) -> list[Reread]:
            read_again(account, streams, tables)
            return requests_for(account, streams, session.dialect, settings)

        return transact(session, run.run, work)


def sent(shop: FakeAccount, streams: Sequence[str]) -> list[Request]:
    """Return the requests for some streams, in order, and forget all requests."""
    requests = sorted((each for stream in streams for each in shop.sent(stream)), key=str)
    shop.recover()
    return requests


@pytest.mark.parametrize(
    ("table", "streams", "expected"),
    [
        ("members", ["profiles"], [Reread("profiles", 1)]),
        ("member_attributes", ["profiles"], [Reread("profiles", 1)]),
        ("stg_member_lists", ["memberships"], [Reread("list_members", 2)]),
        ("templates", ["templates"], [Reread("templates", 2)]),
        ("campaign_reports", ["campaign_reports"], [Reread("campaign_reports", 4)]),
        ("campaigns", ["campaigns"], [Reread("campaigns", None, is_every_run=True)]),
        ("lists", ["lists"], [Reread(name, None, is_every_run=True) for name in ("lists", "segments")]),
    ],
)
def test_the_requests_are_those_of_a_first_run(
    loaded: Warehouse, shop: FakeAccount, table: str, streams: list[str], expected: list[Reread]
) -> None:
    """Rows that have not changed are not written. The run after it reads changes only."""
    loaded.daily()
    first = sent(shop, streams)
    ran = loaded.daily()
    usual = sent(shop, streams)
    before = positions(loaded)
    assert first
    assert (usual == first) is expected[0].is_every_run
    assert reread(loaded, ran, table) == expected
    assert loaded.daily().exit_code == 0
    assert sent(shop, streams) == first
    assert positions(loaded) == before
    loaded.daily()
    assert len(sent(shop, streams)) == len(usual)


def test_rows_that_were_damaged_are_restored(loaded: Warehouse, shop: FakeAccount) -> None:
    """Also details of people, whose digest says that they are stored, and members of lists."""
    ran = loaded.daily()
    damages = ("DELETE FROM member_attributes", "UPDATE member_consents SET consent = 'NO'", "DELETE FROM templates")
    damaged = ("member_attributes", "member_consents", "templates", "stg_member_lists")
    queries = [f"SELECT key FROM {name} ORDER BY 1" for name in damaged[:3]]
    before = [loaded.column(query) for query in queries]
    for statement in (*damages, "DELETE FROM stg_member_lists"):
        loaded.execute(statement)
    loaded.daily()
    assert [loaded.column(query) for query in queries] != before
    reread(loaded, ran, *damaged)
    restored = loaded.daily().changed()
    assert [loaded.column(query) for query in queries] == before
    assert restored["member_consents"] == (0, 2)
    assert restored["stg_member_lists"] == (3, 0)


@pytest.mark.parametrize(
    ("table", "streams"), [("member_lists", []), ("stg_member_lists", ["list_members"]), ("templates", ["templates"])]
)
def test_member_lists_is_derived_as_a_whole(
    loaded: Warehouse, shop: FakeAccount, table: str, streams: list[str]
) -> None:
    """From what is stored, if only it is named; else after the tables that it is derived from were read."""
    ran = loaded.daily()
    rows = "SELECT member_id, is_subscribed FROM member_lists ORDER BY key"
    before = loaded.rows(rows)
    loaded.execute("DELETE FROM member_lists WHERE member_id = 'P0'")
    loaded.execute("UPDATE member_lists SET is_subscribed = NOT coalesce(is_subscribed, false)")
    shop.recover()
    assert [each.stream for each in reread(loaded, ran, table)] == streams
    assert loaded.daily().exit_code == 0
    assert (loaded.rows(rows) == before) is (table != "templates")
    in_full = [each for each in sent(shop, ["profiles", "memberships"]) if each.window.start is None]
    assert bool(in_full) is (table == "stg_member_lists")


def test_a_stream_stays_due_until_it_was_read(loaded: Warehouse, shop: FakeAccount) -> None:
    """Runs that leave it out, and those to which the API refuses it, do not change that. Freshness keeps its time."""
    ran = loaded.daily()
    first = sent(shop, ["profiles"])
    shown = loaded.rows("SELECT watermark FROM freshness WHERE stream = 'profiles'")
    reread(loaded, ran, "members")
    assert loaded.rows("SELECT watermark FROM freshness WHERE stream = 'profiles'") == shown != []
    loaded.daily("templates")
    shop.fail("profiles", MissingScope("Klaviyo refused profiles."))
    loaded.daily()
    shop.recover()
    loaded.daily()
    assert sent(shop, ["profiles"]) == first


def test_a_run_that_was_interrupted_is_not_resumed(loaded: Warehouse, shop: FakeAccount) -> None:
    """It has read some of the tables already."""
    ran = loaded.daily()
    loaded.execute("UPDATE runs SET state = 'stopped'")
    assert loaded.daily().run.id == ran.run.id
    loaded.execute("UPDATE runs SET state = 'stopped'")
    shop.recover()
    reread(loaded, ran, "campaigns")
    assert loaded.daily().run.id != ran.run.id
    assert len(shop.sent("campaigns")) == 1


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        *((name, f"The rows of {name} come with events. .* backfill --start") for name in ("opens", "events")),
        ("profile_merges", "The rows of profile_merges come with events"),
        ("subscription_changes", "The rows of subscription_changes come with events"),
        ("list_names", "Klaviyo has no rows of list_names: runs write them whenever they read lists"),
        *(
            (name, f"Klaviyo has no rows of {name}: runs write them")
            for name in ("watermarks", "deliverability_stored")
        ),
        ("nothing", "There is no table nothing. The tables are accounts, "),
        ("default", "There is no table default"),
        ("reviews", "TABLES leaves out reviews"),
    ],
)
def test_what_a_daily_run_would_not_read_is_refused(
    loaded: Warehouse, shop: FakeAccount, table: str, sentence: str
) -> None:
    """With what to do instead."""
    with loaded.open() as session, pytest.raises(BadSettings, match=sentence):
        streams_to_read([table, "members"], loaded.configured(), session.dialect)


def test_segments_that_no_run_reads_are_refused(loaded: Warehouse) -> None:
    with loaded.open() as session, pytest.raises(BadSettings) as refused:
        streams_to_read(["segment_members"], loaded.configured(), session.dialect)
    assert str(refused.value) == "SEGMENTS is empty, so that no run reads segment_members. Set it."


def test_only_segments_that_are_read_are_estimated(loaded: Warehouse, shop: FakeAccount) -> None:
    """Members of others may still be stored, from runs with other settings."""
    for number in range(3):
        shop.segments.append(Group(f"S{number}", f"Segment {number}", LONG_AGO))
        shop.members[f"S{number}"] = [Membership(f"S{number}", "P0", days_ago(9))]
    loaded.daily(segments=("S0", "S1", "S2"))
    fewer = loaded.variant(segments=("Segment 0", "S1"))
    ran = fewer.daily()
    assert fewer.one("SELECT count(*) FROM segment_members WHERE left_at IS NULL") == 3
    assert reread(fewer, ran, "segment_members") == [Reread("segment_members", 2)]


def test_members_come_with_events_where_the_dialect_lists_no_people(loaded: Warehouse, shop: FakeAccount) -> None:
    """The number of requests for members of lists, who are looked up, is not known."""
    shop.set_traits(lists_people=False, looks_up_memberships=True)
    ran = loaded.daily()
    assert reread(loaded, ran, "stg_member_lists") == [Reread("list_members", None)]
    with pytest.raises(BadSettings, match="The rows of members come with events"):
        reread(loaded, ran, "members")
