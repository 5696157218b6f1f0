"""The declarations of streams: which stream fills which table, and how pages of each become batches."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaviyo_pg.catalogue import DATA
from klaviyo_pg.catalogue.events import EVENT_TABLES
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.klaviyo.current.source import CurrentSource
from klaviyo_pg.klaviyo.legacy.source import LegacySource
from klaviyo_pg.rows import EventPage, Events, Page, Reject
from klaviyo_pg.settings import Settings
from pipeline.streams import DIMENSIONS, STREAMS
from pipeline.streams.events import by_seconds
from pipeline.streams.selection import selection, selection_of
from pipeline.streams.stream import as_one_batch, by_rows

PROFILES = {"profiles", "people", "profile_sweep", "suspected_profiles"}
ALL_EVENTS = [table.name for table in EVENT_TABLES]
ON_REQUEST = {
    *("campaign_reports", "flow_reports", "catalog_items", "catalog_categories", "coupons", "coupon_codes", "reviews"),
    *("push_tokens", "member_predictions"),
}
DEFAULT = STREAMS.keys() - ON_REQUEST
START = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        pytest.param([], DEFAULT, id="default"),
        pytest.param(["metrics"], {"metrics", "lists"}, id="streams that are always read"),
        pytest.param(["opens"], {"metrics", "lists", "events"}, id="events"),
        pytest.param(["automations"], {"metrics", "lists", "flows", "events"}, id="events have placeholders of flows"),
        pytest.param(["lists"], {"metrics", "lists", "segments"}, id="lists and segments"),
        pytest.param(["campaigns"], {"metrics", "lists", "campaigns", "events"}, id="events have campaigns of flows"),
        pytest.param(["members"], {"metrics", "lists", "events", "event_owners", *PROFILES}, id="members"),
        pytest.param(
            ["member_consents"], {"metrics", "lists", "events", "profiles", "people", "event_owners"}, id="consents"
        ),
        pytest.param(["member_exclusions"], {"metrics", "lists", "exclusions"}, id="exclusions"),
        pytest.param(["all"], set(STREAMS), id="all by name"),
        pytest.param(
            ["-members", "-profile_merges"], DEFAULT - PROFILES - {"event_owners"}, id="no profiles and no merges"
        ),
        pytest.param(
            ["flow_reports"], {"metrics", "lists", "mapped_metrics", "flow_reports"}, id="reports need a metric"
        ),
        pytest.param(
            ["all", "-coupons", "-coupon_codes"], set(STREAMS) - {"coupons", "coupon_codes"}, id="coupons and codes"
        ),
        pytest.param(["-coupons"], DEFAULT, id="what is not read anyway"),
        pytest.param(["all", "-member_lists"], set(STREAMS) - {"list_members"}, id="all but list members"),
        pytest.param(["-members"], DEFAULT - PROFILES, id="no profiles"),
        pytest.param(["-events"], DEFAULT, id="events of some tables"),
        pytest.param(["sends", "events", "-events"], {"metrics", "lists", "events"}, id="events of one table"),
        pytest.param(["automations", "opens", "-opens"], {"metrics", "lists", "flows", "events"}, id="both"),
    ],
)
def test_tables_select_the_streams_that_fill_them(tables: list[str], expected: set[str]) -> None:
    """Metrics and lists are always among them, because the plan of the others depends on them."""
    assert selection(tables).streams == expected


@pytest.mark.parametrize("table", [table.name for table in DATA if table.name != "accounts"])
def test_every_table_has_a_stream(table: str) -> None:
    """Except that of the account, which the first request of every run fills."""
    assert any(table in stream.tables for stream in STREAMS.values())


@pytest.mark.parametrize(
    ("table", "advice"),
    [
        pytest.param("open", r"Did you mean opens\?", id="nearly the name of a table"),
        pytest.param("-Open", r"Did you mean opens\?", id="to be left out, in upper case"),
        pytest.param("orders", r"The tables are accounts, .*unsubscribes\.", id="like no table"),
    ],
)
def test_an_unknown_table_is_rejected(table: str, advice: str) -> None:
    """The error suggests the nearest table, or else names all of them."""
    with pytest.raises(BadSettings, match=rf"^There is no table {table.removeprefix('-')}\. {advice}$"):
        selection(["opens", table])


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param("metrics", "The table metrics cannot be left out: other tables depend on it.", id="metrics"),
        pytest.param("lists", "The table lists cannot be left out: other tables depend on it.", id="lists"),
        pytest.param(
            "profile_merges",
            "The table profile_merges cannot be left out without members, for which it is read.",
            id="what shows that a profile was not deleted",
        ),
        pytest.param(
            "campaign_lists",
            "The table campaign_lists cannot be left out alone, because the same requests fill campaigns. Leave out "
            "campaigns as well.",
            id="a part of another table's answers",
        ),
        pytest.param(
            "event_attributions",
            "The table event_attributions cannot be left out alone, because the same requests fill events.",
            id="a part of what events bring",
        ),
        pytest.param(
            "segments",
            "The table segments cannot be left out alone, because the same requests fill lists.",
            id="a part of a table that is always read",
        ),
        *(
            pytest.param(
                table,
                f"The table {table} cannot be left out: without it, member_lists would show people who have "
                "unsubscribed or are suppressed as contactable.",
                id=table,
            )
            for table in ("member_exclusions", "stg_member_exclusions", "unsubscribes")
        ),
    ],
)
def test_an_exclusion_without_effect_is_rejected(table: str, message: str) -> None:
    """Nothing is left out in silence, or read although it was to be left out."""
    with pytest.raises(BadSettings) as caught:
        selection([f"-{table}"])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "tables",
    [
        pytest.param(["-campaign_lists", "-campaigns"], id="campaigns"),
        pytest.param(["default", "-tags", "-tag_groups"], id="tags"),
        pytest.param(["-flow_messages", "-flow_actions", "-automations"], id="flows, whose stream fills most of them"),
        pytest.param(["all", "-catalog_variants", "-catalog_items"], id="a table on request"),
    ],
)
def test_tables_of_the_same_requests_can_be_left_out_together(tables: list[str]) -> None:
    """Like the table that their stream fills first, without which the others are not read either."""
    [leading] = [f"-{stream.table.name}" for stream in STREAMS.values() if f"-{stream.table.name}" in tables]
    assert selection(tables).streams == selection([*tables[: tables[0] == "all"], leading]).streams


def test_a_table_cannot_be_left_out_while_another_stream_fills_it() -> None:
    """Leaving out the leading table of one of its streams is not enough."""
    with pytest.raises(BadSettings, match=r"^The table \w+ cannot be left out alone"):
        selection(["-members", "-profile_merges", "-member_attributes"])


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        *(
            pytest.param(
                tables,
                "The table coupons cannot be left out without coupon_codes, for which it is read.",
                id=f"coupons of {tables[0]}",
            )
            for tables in (["all", "-coupons"], ["default", "coupon_codes", "-coupons"], ["coupon_codes", "-coupons"])
        ),
        pytest.param(
            ["all", "-mapped_metrics"],
            "The table mapped_metrics cannot be left out without campaign_reports and flow_reports, for which it is "
            "read. Set REPORT_METRIC to leave it out alone.",
            id="the metric of reports",
        ),
    ],
)
def test_what_a_table_on_request_is_read_with_cannot_be_left_out(tables: list[str], message: str) -> None:
    """Without its coupons no code would be read, and reports would count by another metric."""
    with pytest.raises(BadSettings) as caught:
        selection(tables)
    assert str(caught.value) == message


def test_reports_by_a_metric_of_the_settings_need_no_mapping() -> None:
    for tables in (["flow_reports", "-mapped_metrics"], ["flow_reports"]):
        settings = Settings(_env_file=None, tables=tables, report_metric="Placed Order")
        assert selection_of(settings).streams == {"metrics", "lists", "flow_reports"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param([], None, id="all"),
        pytest.param(["sends", "members"], {"sends"}, id="some"),
        pytest.param(["automations"], set(), id="none"),
        pytest.param(["member_lists"], None, id="what needs unsubscribes"),
        pytest.param(["-events", "-clicks"], set(ALL_EVENTS) - {"events", "clicks"}, id="all but some"),
        pytest.param(["default", "-opens"], set(ALL_EVENTS) - {"opens"}, id="default but one"),
        pytest.param(["sends", "opens", "-opens"], {"sends"}, id="both"),
    ],
)
def test_tables_select_the_metrics_of_their_events(names: list[str], expected: set[str] | None) -> None:
    assert selection(names).event_tables(CurrentSource.dialect) == expected


def test_where_people_come_from_events_only_members_need_all_metrics() -> None:
    assert selection(["members"]).event_tables(LegacySource.dialect) is None


def test_a_stream_that_costs_much_is_only_read_if_it_is_asked_for() -> None:
    """It is part of all, and of what names its table, but not of the default."""
    streams = {**STREAMS, "flows": replace(STREAMS["flows"], on_request=True)}
    chosen = {tuple(names): selection(names, streams).streams for names in ([], ["-opens"], ["all"])}
    assert [("flows" in each) for each in chosen.values()] == [False, False, True]
    assert selection(["default", "automations"], streams).streams == DEFAULT


def test_streams_are_named_once_and_dimensions_come_first() -> None:
    assert all(name == stream.name for name, stream in STREAMS.items())
    assert list(STREAMS.values())[: len(DIMENSIONS)] == list(DIMENSIONS)
    subjects = {None, "metric", "list", "segment", "coupon", "month", "reason", "first digits of keys"}
    assert {stream.subject for stream in STREAMS.values()} == subjects


def page(rows: int, reached: int | None, *rejects: Reject) -> Page[str]:
    """Return a page with so many rows, and a time that it reaches."""
    moment = None if reached is None else START + timedelta(hours=reached)
    return Page(["row"] * rows, rejects, START, moment)


def groups(pages: Iterable[Page[str]], least: int, seconds: float = math.inf) -> list[tuple[int, int | None, bool]]:
    """Return the rows, the hour of the checkpoint, and whether it is the last one, of each group."""
    return [
        (group.rows, None if group.reached is None else (group.reached - START) // timedelta(hours=1), group.is_last)
        for group in by_rows(pages, least, seconds=seconds)
    ]


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        pytest.param([], [(0, None, True)], id="nothing"),
        pytest.param([page(0, None)], [(0, None, True)], id="an empty page"),
        pytest.param([page(2, 1), page(2, 2), page(1, 3)], [(4, 2, False), (1, None, True)], id="several pages"),
        pytest.param([page(5, 1), page(5, 2)], [(5, 1, False), (5, None, True)], id="full pages"),
        pytest.param([page(5, None), page(5, 2)], [(5, None, False), (5, None, True)], id="an unknown order"),
        pytest.param(
            [page(5, 1), page(5, 2, Reject("{}", "odd")), page(5, 3), page(5, 4)],
            [(5, 1, False), (5, None, False), (5, None, False), (5, None, True)],
            id="no checkpoint after an unreadable record",
        ),
        pytest.param(
            [page(5, 1, Reject("{}", "odd", hides=False)), page(5, 2)],
            [(5, 1, False), (5, None, True)],
            id="a record that hides nothing",
        ),
    ],
)
def test_pages_are_grouped_by_rows(
    pages: Sequence[Page[str]], expected: Sequence[tuple[int, int | None, bool]]
) -> None:
    """A group has at least four rows here, and the last one completes the chunk."""
    assert groups(pages, 4) == expected


def test_pages_that_come_slowly_are_stored_one_by_one() -> None:
    """Otherwise a kill would cost all that a reader has waited for."""
    pages = [page(1, 1), page(0, 2), page(1, 3), page(1, 4)]
    assert groups(pages, 100, seconds=0) == [(1, 1, False), (1, 3, False), (1, None, True)]
    slow = by_seconds([event_page(1, 2), event_page(3, 4), event_page(4, 5)], 100, seconds=0)
    assert [[at for each in group.pages for at in each.events.at] for group in slow] == [[1], [2, 3], [4, 4, 5]]


def test_storing_a_batch_does_not_shorten_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a slow database would get smaller batches, and take even longer."""
    now = 0.0
    monkeypatch.setattr("pipeline.streams.stream.monotonic", lambda: now)
    sizes: list[int] = []
    pages = [page(2, 1), page(1, 2), page(1, 3)]
    events = [event_page(1, 2), event_page(3, 4), event_page(5), event_page(6, 7)]
    for grouped in (by_rows(pages, 2, seconds=60), by_seconds(events, 3, seconds=60)):
        for group in grouped:
            sizes.append(group.rows)
            now += 3_600
    assert sizes == [2, 2, 3, 3, 1]


def test_a_full_read_is_one_batch() -> None:
    """Nothing may be stored before its last page has been read."""
    [group] = as_one_batch([page(3, 1), page(2, 2)], 1)
    assert (group.rows, group.reached, group.is_last) == (5, None, True)


def event_page(*seconds: int) -> EventPage:
    """Return a page of events that happened at these times, with their position in the id."""
    columns: list[list[object]] = [[None] * len(seconds) for _ in Events._fields]
    columns[0] = [f"{at}:{position}" for position, at in enumerate(seconds)]
    columns[1] = list(seconds)
    return EventPage(Events(*columns), (), (), START)  # type: ignore[arg-type]


@given(st.lists(st.lists(st.integers(0, 6), max_size=12), max_size=8), st.integers(1, 10))
def test_groups_of_events_end_between_seconds(pages: list[list[int]], least: int) -> None:
    """Each event is in one group, and none from before a checkpoint comes after it."""
    times = sorted(at for each in pages for at in each)
    sorted_pages = []
    for size in map(len, pages):
        sorted_pages.append(event_page(*times[:size]))
        times = times[size:]
    ids: list[str] = []
    start = datetime.fromtimestamp(0, UTC)
    *others, last = by_seconds(sorted_pages, least, seconds=math.inf)
    assert last.is_last and last.reached is None
    assert not any(group.is_last for group in others)
    for group in [*others, last]:
        end = group.reached or datetime.max.replace(tzinfo=UTC)
        assert group.rows == sum(len(each.events) for each in group.pages)
        for each in group.pages:
            assert all(start.timestamp() <= at < end.timestamp() for at in each.events.at)
            ids += each.events.id
        start = end
    assert sorted(ids) == sorted(name for each in sorted_pages for name in each.events.id)


def test_events_out_of_order_are_grouped_all_the_same() -> None:
    """Events of the latest second are held back, wherever they are on a page."""
    grouped = by_seconds([event_page(3, 1, 3, 2), event_page(4)], 2, seconds=math.inf)
    assert [[at for each in group.pages for at in each.events.at] for group in grouped] == [[1, 2], [3, 3], [4]]


@pytest.mark.parametrize("seconds", [(5, 5, 5, 5), (1, 1)])
def test_a_crowded_second_is_not_split(seconds: tuple[int, ...]) -> None:
    """Events of one second stay in one batch, however many they are."""
    assert len(list(by_seconds([event_page(*seconds), event_page(*seconds)], 2))) == 1


def test_people_and_rejects_of_a_page_come_once() -> None:
    """Events that are held back leave them in the first group."""
    reject = Reject("{}", "odd")
    pages = [event_page(1, 2, 3)._replace(rejects=[reject]), event_page(4, 5)]
    rejects = [[*each.rejects] for group in by_seconds(pages, 2, seconds=math.inf) for each in group.pages]
    assert [reject for each in rejects for reject in each] == [reject]
