"""Campaigns of revision 2026-10-15, from bytes to rows, with a fake client that answers by path and query."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from klaviyo_pg.errors import MissingScope, NotFound, OtherRevision, Refused
from klaviyo_pg.klaviyo.client import Client, Endpoint
from klaviyo_pg.klaviyo.current.paging import ReadPage
from klaviyo_pg.klaviyo.current.reader import unless_refused
from klaviyo_pg.klaviyo.current.source import CurrentSource
from klaviyo_pg.rows import Campaign, CampaignMessage, Page, Reject
from klaviyo_pg.traffic import Traffic

JULY = datetime(2026, 7, 1, tzinfo=UTC)
TEXT = "2026-07-01T00:00:00+00:00"
NO_MESSAGE = "The message belongs to none of the campaigns."
INCOMPLETE = "The page does not include all audiences and messages of the campaign."


class Answers:
    """A client that returns the page of a path and whether archived rows are meant, and records the requests."""

    traffic = Traffic()

    def __init__(self, **pages: object) -> None:
        self._pages = pages
        self.requests: list[str] = []

    def get(
        self,
        path: str,
        parameters: Mapping[str, str],
        endpoint: Endpoint,
        read: Callable[[bytes], Any],
        can_ask_for_less: bool = False,
    ) -> Any:
        self.requests.append(path.removeprefix("api/"))
        is_archived = "true" in parameters.get("filter", "")
        if path.endswith("campaign-variations"):
            name = "variations"
        elif path.endswith("campaign-messages"):
            name = "messages" if parameters.get("include") else "bare_messages"
        else:
            name = "archived" if is_archived else "campaigns"
        answer = self._pages.get(name, page())
        if isinstance(answer, Exception):
            raise answer
        return read(answer if isinstance(answer, bytes) else json.dumps(answer).encode())


def page(*rows: object, included: Sequence[object] = ()) -> dict[str, object]:
    return {"data": list(rows), "included": list(included)}


def resource(kind: str, row_id: str, attributes: object, **related: object) -> dict[str, Any]:
    """Return a resource. `related` are the ids of related resources by relationship."""
    relationships = {name.replace("_", "-"): {"data": _references(each)} for name, each in related.items()}
    return {"type": kind, "id": row_id, "attributes": attributes, "relationships": relationships}


def _references(related: object) -> object:
    return [{"id": each} for each in related] if isinstance(related, list) else {"id": related}


def campaign(attributes: object, **related: object) -> dict[str, Any]:
    return resource("campaign", "c1", attributes, **related)


def audience(row_id: str = "a1", **definition: object) -> dict[str, Any]:
    return resource("campaign-audience", row_id, {"definition": definition}, campaign="c1")


def message(row_id: str = "m1", variations: list[str] | None = None, **definition: object) -> dict[str, Any]:
    related = {} if variations is None else {"campaign_variations": variations}
    attributes = {"created": TEXT, "updated": TEXT, "definition": definition}
    return resource("campaign-message", row_id, attributes, campaign="c1", **related)


def variation(row_id: str = "v1", name: str | None = None, **details: object) -> dict[str, Any]:
    return resource("campaign-variation", row_id, {"definition": {"name": name, "details": details}})


def read(**pages: object) -> tuple[list[Campaign], list[Reject], Answers]:
    """Return what is read from these pages, and the client."""
    answers = Answers(**pages)
    it = CurrentSource(cast(Client, answers), revision="2026-10-15")
    read = list[Page[Campaign]](it.campaigns())
    assert not any(each.incomplete for each in read)
    return [row for each in read for row in each.rows], [row for each in read for row in each.rejects], answers


def test_all_fields_of_a_campaign_are_read() -> None:
    """Its lists are those of all audiences, and its content is that of the first variation that has some."""
    definition = {"name": "Spring", "archived": True, "color": "ff0000"}
    audiences = [
        audience("a1", included=["L1", "S1"], excluded=["L2"], priority=1),
        audience("a2", included=["S1", "S2"], excluded=["L2", "L3"], priority=2),
    ]
    row = campaign(
        {"created_at": TEXT, "updated_at": TEXT, "definition": definition},
        campaign_audiences=["a2", "a1"],
        campaign_messages=["m1"],
        tags=["t1"],
    )
    sender = {"from_label": "Shop", "from_email": "s@example.com"}
    email = variation("v1", "A", channel="email", subject="Hi", preview_text="Soon", template_id="T1", **sender)
    options = {"send_time": TEXT, "send_strategy": "local_timezone"}
    found, rejects, answers = read(
        campaigns=page(row, included=audiences),
        messages=page(message("m1", ["v1"], name="One", status="sent", send_options=options), included=[email]),
    )
    of_sender = ("s@example.com", "Shop")
    sent = CampaignMessage(
        *("m1", "c1", "email", "One", "Hi", "Soon", None, *of_sender, None, "T1", "Sent", JULY, JULY, True, JULY, JULY)
    )
    lists = (["S1", "S2", "L1"], ["L2", "L3"])
    assert found == [
        Campaign(
            *("c1", "Spring", "S1", *of_sender, "Hi", "Sent", JULY, "email", JULY, JULY, *lists, True, JULY),
            messages=[sent],
            tags=["t1"],
        )
    ]
    assert rejects == []
    assert answers.requests == ["campaign-messages", "campaigns", "campaigns"]


def test_a_test_has_a_row_for_each_of_its_variations() -> None:
    """Each has its own content and its own times of sending; the message has the first content and all times."""
    times = {"v2": "2026-07-03T00:00:00Z", "v1": "2026-07-02T00:00:00Z"}
    of_test = message("m1", ["v1", "v2"], status="scheduled", send_options={"send_time": TEXT, "send_times": times})
    variations = [
        variation("v1", "A", channel="email", subject="Hi"),
        variation("v2", "B", channel="push", title="Ho", body="Now"),
    ]
    [row], _, _ = read(
        campaigns=page(campaign({"definition": {}}, campaign_messages=["m1"])),
        messages=page(of_test, included=variations),
    )
    columns = [(each.id, each.variation_of, each.label, each.channel, each.subject) for each in row.messages]
    assert columns == [
        ("m1", None, None, "email", "Hi"),
        ("v1", "m1", "A", "email", "Hi"),
        ("v2", "m1", "B", "mobile_push", "Ho"),
    ]
    day = timedelta(days=1)
    assert [(each.send_at, each.last_send_at) for each in row.messages] == [
        (JULY + day, JULY + 2 * day),
        (JULY + day, JULY + day),
        (JULY + 2 * day, JULY + 2 * day),
    ]
    assert (row.campaign_type, row.scheduled_at, row.sent_at) == ("email,mobile_push", JULY + day, None)


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        pytest.param([], None, id="no messages"),
        pytest.param(["sent", "sent"], "Sent", id="all sent"),
        pytest.param(["sent", "scheduled"], "Scheduled", id="one to be sent"),
        pytest.param(["cancelled", "sent"], "Sent", id="one cancelled"),
        pytest.param(["draft", "sending", "sent"], "Sending", id="one being sent"),
        pytest.param(["cancelled", "draft"], "Draft", id="nothing sent"),
        pytest.param(["paused"], "paused", id="a new status"),
        pytest.param(["paused", "draft", None, 5], "Draft", id="odd ones"),
        pytest.param([{"a": 1}], '{"a":1}', id="not text"),
    ],
)
def test_the_status_of_a_campaign_is_that_of_its_messages(statuses: list[object], expected: str | None) -> None:
    messages = [message(f"m{at}", [], status=status) for at, status in enumerate(statuses)]
    [row], _, _ = read(campaigns=page(campaign({"definition": {}})), messages=page(*messages))
    assert row.status == expected


@pytest.mark.parametrize("refusal", [Refused("400: 'campaign-variations' is not an allowed include"), None])
def test_variations_that_are_not_included_are_read_for_each_message(refusal: Exception | None) -> None:
    """This covers an API that refuses to include them, and one that ignores the parameter."""
    bare = page(message("m1", status="draft"))
    [row], rejects, answers = read(
        campaigns=page(campaign({"definition": {}}, campaign_messages=["m1"])),
        messages=refusal or bare,
        bare_messages=bare,
        variations=page(variation(channel="email", subject="Hi")),
    )
    assert (row.subject, row.messages[0].subject, rejects) == ("Hi", "Hi", [])
    assert answers.requests[-2:] == ["campaign-messages/m1/campaign-variations", "campaigns"]


def test_a_message_that_only_its_campaign_includes_is_read() -> None:
    """It was created after the messages were read."""
    new = message("m1", status="draft")
    [row], rejects, _ = read(
        campaigns=page(campaign({"definition": {}}, campaign_messages=["m1"]), included=[new]),
        variations=NotFound("it was deleted since"),
    )
    assert ([each.id for each in row.messages], row.status, rejects) == (["m1"], "Draft", [])


def test_an_id_in_a_path_is_quoted() -> None:
    _, _, answers = read(
        campaigns=page(campaign({"definition": {}}, campaign_messages=["../m?1"])), messages=page(message("../m?1"))
    )
    assert "campaign-messages/..%2Fm%3F1/campaign-variations" in answers.requests


@pytest.mark.parametrize("missing", ["campaign_audiences", "campaign_messages"])
def test_a_campaign_of_which_something_is_missing_is_rejected(missing: str) -> None:
    """Its lists or its status would be wrong. What the warehouse has of it stays."""
    found, [rejected], _ = read(campaigns=page(campaign({"definition": {}}, **{missing: ["x1"]})))
    assert (found, rejected.reason, rejected.hides) == ([], INCOMPLETE, True)


def test_a_message_of_no_campaign_is_rejected() -> None:
    """It may be one that the warehouse has, so that nothing is taken for deleted."""
    _, [rejected], _ = read(messages=page(message("m1", [])))
    assert (rejected.reason, rejected.hides, json.loads(rejected.raw)["id"]) == (NO_MESSAGE, True, "m1")


def test_a_list_whose_id_is_not_text_is_rejected() -> None:
    lists = page(campaign({"definition": {}}), included=[audience(included=["L1", 5, None, "L\0"])])
    [row], [rejected], _ = read(campaigns=lists)
    assert (row.included, rejected.reason) == (["L1"], "The audience has a list whose ID is not text.")


def test_messages_of_archived_campaigns_are_not_rejected_if_those_are_refused() -> None:
    answers = Answers(campaigns=page(campaign({"definition": {}})), archived=Refused("no"), messages=page(message()))
    read = list(CurrentSource(cast(Client, answers), revision="2026-10-15").campaigns())
    assert [each.incomplete and each.incomplete.parts for each in read] == [None, ("archived campaigns",)]
    assert [each.rejects for each in read] == [[], ()]


@pytest.mark.parametrize("error", [NotFound("no"), MissingScope("campaigns:read"), Refused("no")])
def test_messages_that_are_refused_leave_campaigns_as_they_are(error: Exception) -> None:
    """Without its messages, a campaign would lose its status and its subject."""
    with pytest.raises(type(error)):
        read(messages=error, bare_messages=error, campaigns=page(campaign({"definition": {}})))


LATER = {"definition": {"name": "Spring"}, "created_at": TEXT, "updated_at": TEXT}
EARLIER = {"name": "Spring", "status": "Sent", "created_at": TEXT, "updated_at": TEXT, "send_time": TEXT}


@pytest.mark.parametrize(
    ("revision", "attributes"), [("2026-07-15", LATER), ("2026-10-15", EARLIER), ("2026-10-15", {"name": "Spring"})]
)
def test_campaigns_in_the_form_of_another_revision_are_refused(revision: Any, attributes: object) -> None:
    """None is stored, since most columns would become null."""
    other = page(campaign(attributes))
    it = CurrentSource(cast(Client, Answers(campaigns=other, archived=other)), revision=revision)
    with pytest.raises(OtherRevision) as refused:
        list(it.campaigns())
    assert str(refused.value) == (
        f"Klaviyo returned campaigns in another form than that of revision {revision}, so they were not stored. Set "
        "KLAVIYO_REVISION to another revision."
    )


def test_a_definition_besides_the_usual_fields_is_ignored() -> None:
    """Klaviyo adds fields within a revision."""
    it = CurrentSource(cast(Client, Answers(campaigns=page(campaign({**EARLIER, "definition": {}})))))
    assert {row.name for each in it.campaigns() for row in each.rows} == {"Spring"}


ODD: list[object] = [None, {}, [], "x", 5, True, [None], {"data": None}, {"data": [None, 5, {}]}]


def damaged(value: object, odd: object, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], object]]:
    """Return copies of a JSON value, in each of which another member is missing, or is something odd."""
    if not isinstance(value, dict):
        return []
    found: list[tuple[tuple[str, ...], object]] = []
    for name, inner in value.items():
        rest = {other: each for other, each in value.items() if other != name}
        found += [((*path, name), rest), ((*path, name), {**rest, name: odd})]
        found += [(at, {**rest, name: each}) for at, each in damaged(inner, odd, (*path, name))]
    return found


@pytest.mark.parametrize("odd", ODD)
def test_whatever_is_missing_or_odd_becomes_null_or_a_reject(odd: object) -> None:
    """Each member of each resource in turn, at each level. Only the form of an earlier revision stops the read."""
    whole = {
        "campaign": campaign(LATER, campaign_audiences=["a1"], campaign_messages=["m1"], tags=["t1"]),
        "audience": audience(included=["L1"], excluded=["L2"]),
        "message": message(
            *("m1", ["v1"]),
            name="One",
            status="sent",
            send_options={"send_time": TEXT, "send_times": {"v1": TEXT}},
        ),
        "variation": variation(channel="email", subject="Hi"),
    }
    for path, resources in damaged(whole, odd):
        each = cast(dict[str, Any], resources)
        included = [each[name] for name in ("audience",) if name in each]
        found, rejects, _ = read(
            campaigns=page(*(each[name] for name in ("campaign",) if name in each), included=included),
            messages=page(
                *(each[name] for name in ("message",) if name in each),
                included=[each[name] for name in ("variation",) if name in each],
            ),
        )
        assert found or rejects, path


def test_only_the_first_page_shows_whether_a_request_is_refused() -> None:
    """A later refusal must not begin the collection again: what has been read would be read twice."""

    def pages(*documents: Any) -> Iterator[ReadPage[Any]]:
        for document in documents:
            if isinstance(document, Exception):
                raise document
            yield ReadPage(document, [], JULY)

    refused = MissingScope("tags:read")
    assert [page.document for page in unless_refused(pages(refused), MissingScope, pages(1, 2))] == [1, 2]
    assert list(unless_refused(pages(), MissingScope, pages(1))) == []
    found = unless_refused(pages(1, refused), MissingScope, pages(1, 2))
    assert next(found).document == 1
    with pytest.raises(MissingScope):
        next(found)
