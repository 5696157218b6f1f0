"""Reports on campaigns and flows, from answers of the API to rows; and which days of them a run reads."""

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, cast

import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.catalogue import reports as tables
from klaviyo_pg.errors import BadAnswer, Garbled, QuotaUsedUp, Throttled
from klaviyo_pg.klaviyo.client import Client, Endpoint
from klaviyo_pg.klaviyo.current.reports import STATISTICS, of_campaigns, of_flows
from klaviyo_pg.klaviyo.pace import Limit, rate
from klaviyo_pg.rows import Page, Report
from klaviyo_pg.windows import Window
from pipeline.daily.reports import due_windows
from transforms.reports import reports

FIRST = datetime(2026, 7, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ONE_DAY = Window(FIRST, FIRST + DAY)
NOTHING = dict.fromkeys(STATISTICS)
GROUPS = {"campaign_id": "C1", "campaign_message_id": "M1", "send_channel": "email", "variation": "V1"}


class Answers:
    """A client that returns its answers in turn and records the requests."""

    def __init__(self, *answers: object) -> None:
        self._answers = list(answers)
        self.requests: list[tuple[str, Mapping[str, Any]]] = []

    def post(self, endpoint: Endpoint, body: Mapping[str, Any], read: Any, link: str | None = None) -> Any:
        self.requests.append((link or endpoint.path, body["data"]["attributes"]))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return read(answer if isinstance(answer, bytes) else json.dumps(answer).encode())


def answer(*results: object, link: str | None = None, **attributes: object) -> dict[str, object]:
    return {"data": {"attributes": {"results": list(results), **attributes}}, "links": {"next": link}}


def of_a_day(*answers: object) -> tuple[list[Page[Report]], Answers]:
    client = Answers(*answers)
    return list(of_campaigns(cast(Client, client), ONE_DAY, "ORDER")), client


def test_a_report_is_asked_for_by_day_and_read_to_its_last_page() -> None:
    """The last second of the day is the end of the time frame, which the API includes."""
    result = {"groupings": GROUPS, "statistics": {"opens": 7, "open_rate": 0.25, "conversion_value": 19.5}}
    pages, client = of_a_day(answer(result, link="https://a.klaviyo.com/next"), answer())
    [(path, asked), (link, again)] = client.requests
    assert (path, link, again) == ("api/campaign-values-reports", "https://a.klaviyo.com/next", asked)
    assert asked["timeframe"] == {"start": "2026-07-01T00:00:00+00:00", "end": "2026-07-01T23:59:59+00:00"}
    assert (asked["conversion_metric_id"], asked["group_by"]) == ("ORDER", list(GROUPS))
    [row] = pages[0].rows
    statistics = NOTHING | {"opens": 7, "open_rate": 0.25, "conversion_value": 19.5}
    assert row == Report(FIRST.date(), "C1", "M1", "email", "V1", "ORDER", statistics)
    frame = reports(pages[0].rows, [FIRST.date()], loads.CAMPAIGN_REPORTS, "campaign", "one").frame
    assert frame.select("sent_on", "campaign_id", "opens", "open_rate", "conversion_value").rows() == [
        (FIRST.date(), "C1", 7, 0.25, "19.5"),
        (FIRST.date(), None, None, None, None),
    ]


def test_all_statistics_have_a_column() -> None:
    assert [column.name for column in tables.STATISTICS] == list(STATISTICS)


@pytest.mark.parametrize(
    ("document", "rows", "rejects"),
    [
        pytest.param({}, [], 1, id="empty"),
        pytest.param({"data": None}, [], 1, id="data null"),
        pytest.param({"data": {"attributes": None}, "links": None}, [], 1, id="attributes null"),
        pytest.param({"data": {"attributes": {"results": None}}}, [], 1, id="results null"),
        pytest.param({"data": {"attributes": {"results": {}}}}, [], 1, id="results no list"),
        pytest.param(answer(None, 7, {}, {"groupings": None}), [], 4, id="no groupings"),
        pytest.param(answer({"groupings": {"campaign_id": ""}}), [], 1, id="no campaign"),
        pytest.param(answer({"groupings": {"campaign_id": "C\0"}}), [], 1, id="NUL"),
        pytest.param(
            answer({"groupings": {"campaign_id": "C1", "send_channel": 7}}), [("C1", None, None)], 0, id="id only"
        ),
        pytest.param(
            answer({"groupings": GROUPS, "statistics": [1]}), [("C1", "M1", "email")], 0, id="statistics no object"
        ),
        pytest.param(
            answer({"groupings": GROUPS | {"send_channel": "carrier pigeon"}, "statistics": {"opens": "7"}}),
            [("C1", "M1", "carrier pigeon")],
            0,
            id="unknown channel",
        ),
    ],
)
def test_a_report_is_read_whatever_is_missing(
    document: object, rows: list[tuple[str | None, ...]], rejects: int
) -> None:
    """A result without a campaign is rejected, and so is an answer without results."""
    [page], _ = of_a_day(document)
    assert [row[1:4] for row in page.rows] == rows
    assert all(row.statistics == NOTHING for row in page.rows)
    assert (len(page.rejects), all(each.hides for each in page.rejects)) == (rejects, True)


def test_numbers_that_cannot_be_stored_are_null() -> None:
    """A count with a fraction is no count. An ID with a NUL could be another one without it."""
    body = json.dumps(answer({"groupings": GROUPS | {"variation": "a\x00b"}})).encode()
    odd = b'"statistics":{"opens":1.5,"clicks":2.0,"bounced":true,"failed":1e999,"recipients":1' + b"0" * 30 + b"}}]"
    [page], _ = of_a_day(body.replace(b"}]", b"}," + odd, 1).replace(b"}},", b"},", 1))
    frame = reports(page.rows, [], loads.CAMPAIGN_REPORTS, "campaign", "one").frame
    assert frame.select("variation_id", "opens", "clicks", "bounced", "failed", "recipients").rows() == [
        (None, None, 2, None, None, None)
    ]


def test_what_is_no_report_is_asked_for_again() -> None:
    """The client retries a response that cannot be read; a circle of pages ends the run."""
    for body in (b"<html>", b"[]", b"{"):
        with pytest.raises(Garbled):
            of_a_day(body)
    with pytest.raises(BadAnswer, match="already been read"):
        of_a_day(answer(link="https://a.klaviyo.com/2"), answer(link="https://a.klaviyo.com/2"))


def test_only_a_rate_limit_of_the_api_means_that_the_quota_is_used_up() -> None:
    with pytest.raises(QuotaUsedUp, match=r"^Klaviyo's quota for campaign reports is used up for another 3:00:00\."):
        of_a_day(Throttled("429", 10_800.0, is_limit=True))
    with pytest.raises(Throttled, match=r"^503$"):
        of_a_day(Throttled("503", 10_800.0))


@pytest.mark.parametrize(
    ("dates", "days", "rejects"),
    [
        pytest.param(["2026-07-01T04:00:00+00:00", None, "x"], {1: 5, 3: 7}, 0, id="by place"),
        pytest.param([], {1: 5, 3: 7}, 0, id="no dates"),
        pytest.param(["2026-07-02T00:00:00-04:00", "2026-07-03T00:00:00-04:00"], {2: 5}, 1, id="too few"),
        pytest.param(["2026-07-02", "2026-07-03", "2026-07-04", "2026-07-05"], {2: 5}, 0, id="a day of another window"),
        pytest.param(["odd"], {}, 1, id="odd"),
    ],
)
def test_a_series_is_a_row_for_each_day_that_has_something(
    dates: list[object], days: dict[int, int], rejects: int
) -> None:
    """A result with a value of an unknown day is rejected as well. Otherwise its rows would look deleted."""
    result = {
        "groupings": {"flow_id": "F1", "flow_message_id": "M1"},
        "statistics": {"opens": [5, 0, 7], "open_rate": [0.5], "clicks": None, "unknown": [1]},
    }
    client = cast(Client, Answers(answer(result, date_times=dates)))
    [page] = of_flows(client, Window(FIRST, FIRST + 3 * DAY), "ORDER")
    assert {row.day.day: row.statistics["opens"] for row in page.rows if row.statistics["opens"]} == days
    assert (len(page.rejects), all(each.hides for each in page.rejects)) == (rejects, True)


NOW = datetime(2026, 7, 31, 6, tzinfo=UTC)
DAYS = [(NOW - back * DAY).date() for back in range(1, 6)]


@pytest.mark.parametrize(
    ("longest", "read", "requests", "expected", "advances"),
    [
        pytest.param(1, {}, 9, [[30], [29], [28], [27], [26]], True, id="new ones from the latest on"),
        pytest.param(1, {30: 1, 29: 3, 28: 2, 27: 2}, 3, [[26], [29], [28]], True, id="the oldest reads first"),
        pytest.param(1, {29: 1, 28: 1}, 2, [[30], [27]], False, id="a day that was never read is left"),
        pytest.param(2, {30: 1}, 1, [[28, 29]], False, id="a block of such days is left"),
        pytest.param(1, {30: 0, 29: 0, 28: 0.5}, 4, [[27]], False, id="what today has used is gone"),
        pytest.param(1, dict.fromkeys(range(26, 31), 0.2), 9, [], True, id="all was read today"),
        pytest.param(60, {}, 9, [[26, 27, 28, 29, 30]], True, id="several days at once"),
        pytest.param(2, {28: 0}, 9, [[29, 30], [26, 27]], True, id="gaps and blocks"),
        pytest.param(60, {30: 0, 29: 0}, 1, [], False, id="one request for several days"),
    ],
)
def test_days_take_turns(
    longest: int, read: dict[int, float], requests: int, expected: list[list[int]], advances: bool
) -> None:
    """The watermark advances once no day is left that was never read, even if others are still due."""
    last = {date(2026, 7, day): NOW - ago * DAY for day, ago in read.items()}
    windows, are_all = due_windows(DAYS, last, longest, NOW, requests)
    days = [[(window.start + n * DAY).day for n in range((window.end - window.start).days)] for window in windows]
    assert (days, are_all) == (expected, advances)


def test_a_limit_of_few_requests_is_spread_without_halving_it() -> None:
    """Two a minute, of which nine tenths are used, are one every 33 seconds."""
    spread = rate(Limit(1, 2), 0.9)
    assert spread.interval / spread.limit == pytest.approx(33_333, abs=1)
    assert spread.burst == 1
