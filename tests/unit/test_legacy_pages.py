"""The legacy dialect, from bytes to rows, with a fake client that has one answer for each path."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain, cycle, repeat
from typing import Any, cast

import pytest

from klaviyo_pg.errors import NotFound, Refused
from klaviyo_pg.klaviyo.client import Client, Endpoint
from klaviyo_pg.klaviyo.legacy.source import LegacySource
from klaviyo_pg.rows import Exclusion, Group, Membership, Page, Profile, Suppression
from klaviyo_pg.traffic import Traffic
from klaviyo_pg.windows import FULL_READ, OpenWindow

JULY = datetime(2026, 7, 1, tzinfo=UTC)
SEGMENT = {"id": "S1", "name": "Buyers", "list_type": "segment", "created": "2026-07-01 00:00:00"}


class Answers:
    """A client that answers each path in the same way every time, and records the requests.

    An answer can be a function of the request's parameters.
    """

    traffic = Traffic()

    def __init__(self, answers: Mapping[str, object]) -> None:
        self._answers = answers
        self.requests: list[tuple[str, Mapping[str, str]]] = []

    def get(
        self,
        path: str,
        parameters: Mapping[str, str] | None = None,
        endpoint: Endpoint | None = None,
        body: object = None,
        read: Callable[[bytes], Any] = bytes,
        can_ask_for_less: bool = False,
    ) -> Any:
        self.requests.append((path, parameters or {}))
        answer = self._answers.get(path, NotFound())
        if isinstance(answer, Exception):
            raise answer
        if callable(answer):
            answer = answer(parameters or {})
        return read(json.dumps(answer).encode())


def source(answers: Mapping[str, object], events_page_size: int = 100) -> tuple[LegacySource, Answers]:
    client = Answers(answers)
    return LegacySource(cast(Client, client), cast(Client, client), events_page_size), client


def person(**fields: object) -> Profile:
    """Return a person as read from v1/person."""
    it, _ = source({"api/v1/person/P1": {"object": "person", "id": "P1", **fields}})
    [page] = it.people(["P1"])
    [row] = page.rows
    return row


def test_a_person_has_all_standard_fields() -> None:
    """Empty text is null, and a standard field is no custom property."""
    fields = {"$id": "crm-1", "$title": "Captain", "$organization": "Ropes", "$region": "MA"}
    row = person(**fields, created="2026-07-01 00:00:00", size="M")
    assert (row.external_id, row.title, row.organization, row.locale) == ("crm-1", "Captain", "Ropes", None)
    assert (row.state, row.created, row.properties) == ("MA", JULY, {"size": "M"})
    empty = person(**dict.fromkeys(fields, ""))
    assert (empty.external_id, empty.title, empty.organization, empty.state) == (None, None, None, None)


def test_the_consent_of_a_person_is_no_custom_property() -> None:
    row = person(**{"$consent": "email", "$consent_method": "form", "$consent_timestamp": "2026-07-01 00:00:00"})
    assert row.properties == {}
    assert row.consents is not None
    assert [(each.channel, each.method, each.timestamp) for each in row.consents] == [("email", "form", JULY)]


@pytest.mark.parametrize(
    ("fields", "state", "properties"),
    [
        pytest.param({"$state": "MA"}, "MA", {}, id="$state"),
        pytest.param({"$state": "", "$region": "NY"}, "NY", {}, id="$region"),
        pytest.param({"$state": "MA", "$region": "NY"}, "MA", {}, id="both"),
        pytest.param({"state": "MA"}, None, {"state": "MA"}, id="a custom property"),
    ],
)
def test_the_state_of_a_person_is_found(fields: dict[str, str], state: str | None, properties: dict[str, Any]) -> None:
    row = person(**fields)
    assert (row.state, row.properties) == (state, properties)


@pytest.mark.parametrize(
    ("fields", "created", "properties"),
    [
        pytest.param({"created": "2026-07-01 00:00:00"}, JULY, {}, id="created"),
        pytest.param({"created_at": "2026-07-01T00:00:00Z"}, JULY, {}, id="created_at"),
        pytest.param(
            {"created": "2026-07-01 00:00:00", "created_at": "yesterday"},
            JULY,
            {"created_at": "yesterday"},
            id="a custom property",
        ),
    ],
)
def test_the_time_of_creation_is_found(fields: dict[str, str], created: datetime, properties: dict[str, Any]) -> None:
    row = person(**fields)
    assert (row.created, row.properties) == (created, properties)


def test_lists_and_segments_have_the_time_of_their_last_change() -> None:
    times = {"created": "2026-07-01T00:00:00Z", "updated": "2026-07-01T00:00:00Z"}
    it, _ = source(
        {
            "api/v2/lists": [{"list_id": "L1", "list_name": "News"}],
            "api/v2/list/L1": times,
            "api/v1/campaigns": {"data": [{"id": "C1", "lists": [{**SEGMENT, "updated": "2026-07-01 00:00:00"}]}]},
        }
    )
    assert [row for page in it.lists() for row in page.rows] == [Group("L1", "News", JULY, JULY)]
    assert [row for page in it.segments() for row in page.rows] == [Group("S1", "Buyers", JULY, JULY)]


def test_all_members_of_a_segment_are_read_without_a_time() -> None:
    """They have no time of joining, so there are no new ones to ask for."""
    records = [{"id": "P1", "email": "a@example.com"}, {"id": "P2", "phone_number": "+4512345678"}, {"id": None}]
    it, _ = source({"api/v2/group/S1/members/all": {"records": records}})
    [page] = it.segment_members("S1", FULL_READ)
    assert list(page.rows) == [Membership("S1", "P1", None), Membership("S1", "P2", None)]
    assert [reject.hides for reject in page.rejects] == [True]
    assert list(it.segment_members("S1", OpenWindow(JULY))) == []


def test_a_campaign_that_cannot_be_read_may_hide_a_segment() -> None:
    """The segments are incomplete then, so a missing one does not count as deleted."""
    it, _ = source({"api/v1/campaigns": {"data": [{"id": "C1", "lists": [SEGMENT]}, {"id": 2, "lists": []}]}})
    [page] = it.segments()
    assert [group.id for group in page.rows] == ["S1"]
    assert [reject.hides for reject in page.rejects] == [True]
    assert page.rejects[0].reason.startswith("The segments of a campaign: ")


def test_events_of_all_metrics_are_read_from_one_timeline() -> None:
    """This includes events whose metric is not listed."""
    events = [{"id": "e1", "timestamp": 1, "statistic_id": "unlisted"}, {"id": "e2", "timestamp": 2}]
    it, client = source({"api/v1/metrics/timeline": {"data": events}}, events_page_size=50)
    assert it.reads_all_metrics_at_once
    [page] = it.events(FULL_READ)
    assert page.events.metric_id == ["unlisted", None]
    assert [query["count"] for _, query in client.requests] == ["1", "50"]
    assert it.events_per_page == 50


def test_a_missing_timeline_is_an_error_unless_it_is_that_of_a_metric() -> None:
    """A metric can have been deleted since the metrics were read."""
    it, _ = source({})
    assert list(it.events(FULL_READ, "M1")) == []
    with pytest.raises(NotFound):
        list(it.events(FULL_READ))


def test_without_a_timeline_of_all_metrics_each_metric_is_read() -> None:
    """Archives can lack it. The source is asked once."""
    it, client = source({})
    assert not it.reads_all_metrics_at_once and not it.reads_all_metrics_at_once
    assert len(client.requests) == 1


def test_members_of_a_list_are_read_without_its_suppressions() -> None:
    """If suppressions are refused, the last page says so. A list of which nothing can be read raises the error."""
    member = [{"id": "P1", "email": "p1@example.com", "created": "2026-07-01T00:00:00Z"}]
    looked_up = {"api/v2/list/L1/members": member, "api/v2/list/L1/subscribe": member}
    it, _ = source({**looked_up, "api/v2/list/L1/exclusions/all": Refused("Odd.")})
    pages = list(it.memberships("L1", FULL_READ, ["p1@example.com"]))
    assert [row.member_id for page in pages for row in page.rows] == ["P1"]
    assert [page.incomplete and page.incomplete.parts for page in pages] == [None, ("suppressions",)]
    it, _ = source({"api/v2/list/L1/exclusions/all": {"records": member}, "api/v2/list/L1/members": Refused("Odd.")})
    pages = list(it.memberships("L1", FULL_READ, ["p1@example.com"]))
    assert pages[0].suppressions == [Suppression("L1", "P1", JULY)]
    assert pages[1].incomplete and pages[1].incomplete.parts == ("members",)
    it, _ = source({})
    with pytest.raises(NotFound):
        list(it.memberships("L1", FULL_READ, ["p1@example.com"]))


def excluded(collections: Iterator[Sequence[int]]) -> tuple[set[str], list[Page[Exclusion]]]:
    """Read exclusions, two on a page, of which each request sees the next state. Return addresses and pages."""

    def page(parameters: Mapping[str, str]) -> dict[str, object]:
        collection, start = next(collections), int(parameters["page"]) * 2
        rows = [{"email": f"{each}", "reason": "bounced"} for each in collection[start : start + 2]]
        return {"data": rows, "start": start, "end": start + len(rows) - 1, "total": len(collection), "page_size": 2}

    it, _ = source({"api/v1/people/exclusions": page})
    pages = list(it.exclusions())
    return {row.email for each in pages for row in each.rows}, pages


@pytest.mark.parametrize(
    ("first", "then", "requests"),
    [
        pytest.param([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], 3, id="nothing changes"),
        pytest.param([1, 2, 3, 4], [1, 2, 3, 4, 5], 3, id="a row is added"),
        pytest.param([1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6], 5, id="a row leaves the first page"),
        pytest.param([1, 2, 3], [2, 3], 3, id="a row leaves, and the last page has none"),
        pytest.param([1, 2, 3, 4, 5, 6, 7, 8], [4, 5, 6, 7, 8], 5, id="more rows leave than a page has"),
    ],
)
def test_rows_that_move_to_a_page_that_was_read_already_are_not_missed(
    first: Sequence[int], then: Sequence[int], requests: int
) -> None:
    """A row that leaves a numbered collection moves those after it: earlier pages are read again."""
    emails, pages = excluded(chain([first], repeat(then)))
    assert emails >= set(map(str, then))
    assert len(pages) == requests
    assert not any(each.incomplete for each in pages)


def test_a_row_that_leaves_after_another_was_added_moves_the_others_too() -> None:
    emails, _ = excluded(chain([[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6]], repeat([2, 3, 4, 5, 6])))
    assert emails >= set(map(str, range(2, 7)))


def test_a_collection_that_keeps_changing_is_read_incompletely() -> None:
    """Nothing that the pages lack counts as deleted then."""
    _, pages = excluded(cycle([[1, 2, 3, 4, 5, 6], [2, 3, 4, 5, 6]]))
    assert pages[-1].incomplete and pages[-1].incomplete.parts == ("some rows",)
    campaign, totals = {"id": "C1", "lists": [SEGMENT]}, cycle([300, 200])
    it, _ = source({"api/v1/campaigns": lambda _: {"data": [campaign], "end": 0, "total": next(totals)}})
    *_, last = it.segments()
    assert last.incomplete, "nor a segment that a campaign names"
