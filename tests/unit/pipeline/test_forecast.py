"""The forecast of requests, and the estimates that it rests on."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from klaviyo_pg.klaviyo.pace import Pace
from klaviyo_pg.klaviyo.page_sizes import PageSizes
from klaviyo_pg.rows import Page, ProfileId
from klaviyo_pg.settings import COUNTED_DAYS, Settings
from klaviyo_pg.windows import AnyWindow
from pipeline.commands.check.forecast import COUNTS, KEY, Forecast, Sizes, forecast, minutes
from pipeline.commands.check.sizes import Known, estimated, measure
from pipeline.streams import STREAMS
from pipeline.streams.selection import selection
from tests.fakes import FakeAccount
from tests.source import ROOT
from transforms.routing import KnownMetric

NOW = datetime(2026, 11, 27, 6, tzinfo=UTC)
START = NOW - timedelta(days=1500)
HOURS = {NOW - timedelta(hours=number): 100 for number in range(24 * 31)}
FULL_READS = [name for name, stream in STREAMS.items() if stream.is_one_collection]
SHOP = Sizes(
    full_reads={name: number for number, name in enumerate(FULL_READS, 1)},
    metrics=("opened", "quiet"),
    events={"opened": HOURS},
    people=100_000,
    changed=4_000,
    months=60,
    members={"long": 5_050, "short": 0},
    joined={"long": 250},
    segments={"buyers": 900},
    contents={"templates": (300, 1), "forms": (26, 1), "images": (12, 2), "reviews": (20, 1)},
    excluded={"HARD_BOUNCE": 900, "UNSUBSCRIBE": 8_000},
)


def forecast_of(sizes: Sizes, *tables: str, **settings: Any) -> dict[str, Forecast]:
    """Return the forecast for an account."""
    return forecast(sizes, Settings(_env_file=None, **settings), selection(tables), NOW)


def test_every_stream_has_a_forecast_by_the_formula() -> None:
    """Events are read in 16 windows at first and in 4 later, 100 an hour; of the others, each page is a request."""
    made = forecast_of(SHOP, "all")
    assert made == {
        KEY: Forecast(1, 1),
        **{name: Forecast(number, number) for name, number in SHOP.full_reads.items()},
        "profiles": Forecast(1_000, 40),
        "events": Forecast(16 * 5, 4 * 3),
        "list_members": Forecast(51 + 1, 3 + 1, 48, 7),
        "segment_members": Forecast(9, 1, 8, 7),
        "exclusions": Forecast(9 + 80, 9 + 80),
        "templates": Forecast(300, 1, 299, 7),
        "forms": Forecast(26, 1, 25, 7),
        "images": Forecast(12, 2, 10, 7),
        "reviews": Forecast(20, 1, 19, 7),
        "member_predictions": Forecast(1_000, 40, 960, 7),
        **dict.fromkeys(("catalog_items", "coupon_codes", "push_tokens", "people"), Forecast(0, 0)),
        "profile_sweep": Forecast(0, 0, 1_060, 7),
        "suspected_profiles": Forecast(0, 0),
        "event_owners": Forecast(0, 0),
        "campaign_reports": Forecast(30, 30),
        "flow_reports": Forecast(1, 1),
        COUNTS: Forecast(2, 2),
    }
    assert made.keys() == {KEY, *STREAMS, COUNTS}


def example(profiles: int, events_a_day: int, metrics: int, lists: int, full_reads: int) -> Sizes:
    """Return the size of an example account of docs/requests.md."""
    names = [f"M{number}" for number in range(metrics)]
    often, once = {NOW - timedelta(hours=number): events_a_day // 24 for number in range(1, 24 * 31)}, {START: 1}
    members = profiles * 3 // 2 // lists
    return Sizes(
        full_reads={**dict.fromkeys(FULL_READS, 0), "metrics": full_reads, "tags": 3},
        metrics=names,
        events={**dict.fromkeys(names, once), "M0": often},
        people=profiles,
        changed=profiles * 4 // 100,
        months=60,
        members={str(number): members for number in range(lists)},
        joined={str(number): members // 50 for number in range(lists)},
        excluded={"HARD_BOUNCE": profiles // 20, "UNSUBSCRIBE": profiles * 3 // 20},
        first_created=NOW - timedelta(days=5 * 365),
    )


def test_the_examples_in_the_documentation_follow_from_the_formula() -> None:
    text = (ROOT / "docs/requests.md").read_text().partition("## Examples")[2]
    table = [[cell.strip(" *") for cell in line.split("|")[2:4]] for line in text.splitlines() if line.startswith("|")]
    for at, account in enumerate([(100_000, 30_000, 80, 20, 21), (3_000_000, 1_000_000, 500, 100, 74)]):
        made = forecast_of(example(*account))
        average = {name: each.average or 0 for name, each in made.items()}
        parts = [
            average["metrics"],
            average[KEY] + average["tags"],
            *(average[name] for name in ("profiles", "events", "list_members", "exclusions", "profile_sweep", COUNTS)),
            sum(average.values()),
            sum(each.first or 0 for each in made.values()),
        ]
        assert [row[at] for row in table[2:]] == [f"{number:,.0f}" for number in parts]


def test_settings_change_the_forecast() -> None:
    """Streams that are left out are not in it, and what settings turn off takes nothing."""
    made = forecast_of(
        SHOP, "-tags", reconcile_days=0, profile_sweep_days=0, membership_sweep_days=0, first_sync_days=2
    )
    assert made.keys().isdisjoint({"tags", COUNTS})
    assert (made["events"].first, made["profile_sweep"], made["list_members"].sweep) == (6, Forecast(0, 0), 0)


@pytest.mark.parametrize(
    ("sizes", "settings", "is_least"),
    [
        pytest.param(SHOP, {"first_sync_days": COUNTED_DAYS}, (False, False), id="all counted"),
        pytest.param(SHOP, {"first_sync_days": COUNTED_DAYS + 1}, (True, False), id="a first sync beyond five years"),
        pytest.param(SHOP, {"lookback_days": COUNTED_DAYS}, (False, True), id="an overlap beyond five years"),
        pytest.param(SHOP._replace(uncounted=frozenset({"quiet"})), {}, (True, True), id="a metric without counts"),
    ],
)
def test_events_that_cannot_be_counted_make_the_forecast_a_lower_bound(
    sizes: Sizes, settings: dict[str, Any], is_least: tuple[bool, bool]
) -> None:
    made = forecast_of(sizes, **settings)
    assert (made["events"].is_first_least, made["events"].is_daily_least) == is_least
    assert not any(each.is_first_least or each.is_daily_least for name, each in made.items() if name != "events")


def test_nothing_older_than_five_years_is_counted() -> None:
    """The API would refuse all of it."""
    shop, configured = FakeAccount(), Settings(_env_file=None, first_sync_days=3_000)
    shop.add_events("opened", NOW - timedelta(days=3))
    source, known = (
        shop.open(configured, Pace(1, 60), PageSizes()),
        Known({}, [KnownMetric("opened", "Opened Email")], ()),
    )
    sizes = measure(source, configured, selection(()), frozenset({"events"}), known, NOW, lambda sentence: None)
    [asked] = shop.sent("counts")
    assert asked.window.start == NOW.replace(hour=0) - timedelta(days=COUNTED_DAYS)
    assert sum(sizes.events["opened"].values()) == 1


def test_many_silent_metrics_take_turns() -> None:
    silent = SHOP._replace(metrics=("opened", *(f"quiet {number}" for number in range(699))))
    assert forecast_of(silent)[COUNTS] == Forecast(300, 300)


def test_the_slowest_endpoint_decides_how_long_a_run_takes() -> None:
    """Streams share the limit of an endpoint, endpoints do not wait for each other, and counts come last."""
    requests = {"profiles": 600.0, "exclusions": 150.0, "events": 1_000.0, COUNTS: 60.0, "flows": 5.0}
    endpoints = {"profiles": "profiles", "exclusions": "profiles", "events": "events", COUNTS: "aggregates"}
    limits = {"profiles": 750, "events": 3500, "aggregates": 60}
    assert minutes(requests, endpoints, limits) == pytest.approx(1.0 + 1.0)


def pages(times: list[datetime], asked: list[AnyWindow]) -> Callable[[AnyWindow], Iterator[Page[ProfileId]]]:
    """Return what reads the first 100 of these people in a window, and notes the windows."""

    def read(window: AnyWindow) -> Iterator[Page[ProfileId]]:
        asked.append(window)
        start, end = window.seconds
        found = [ProfileId(str(at), at) for at in sorted(times) if start <= at.timestamp() < end][:100]
        yield Page(found, (), NOW, found[-1].created if found else None)

    return read


@pytest.mark.parametrize(
    ("people", "skew", "requests", "tolerance"),
    [
        pytest.param(0, 1, 1, 0, id="empty"),
        pytest.param(99, 1, 1, 0, id="one page"),
        pytest.param(5_000, 1, 20, 0.15, id="evenly spread"),
        pytest.param(20_000, 3, 48, 0.2, id="more of them lately"),
        pytest.param(20_000, 0.3, 48, 0.2, id="more of them long ago"),
    ],
)
def test_people_are_estimated_by_how_dense_they_are(people: int, skew: float, requests: int, tolerance: float) -> None:
    """The estimate takes no more requests than allowed."""
    dice, asked = random.Random(7), list[AnyWindow]()
    times = [START + (NOW - START) * dice.random() ** (1 / skew) for _ in range(people)]
    assert estimated(pages(times, asked), START, NOW, requests) == pytest.approx(people, rel=tolerance)
    assert len(asked) <= max(requests, 2)
