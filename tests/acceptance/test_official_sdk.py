"""Klaviyo's own client reads the sandbox: every page of a small account parses in the vendor's models."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import openapi_client as vendor
import pytest
from klaviyo_api import KlaviyoAPI
from openapi_client.api_arg_options import USE_DICTIONARY_FOR_RESPONSE_DATA

from sandbox.launcher import Sandbox, running

REASONS = ("HARD_BOUNCE", "INVALID_EMAIL", "SPAM_COMPLAINT", "UNSUBSCRIBE", "USER_SUPPRESSED")
CHANNELS = ("email", "sms", "mobile_push")


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with running(members=300, events=4000, days=30) as box:
        yield box


@pytest.fixture(scope="module")
def client(box: Sandbox) -> KlaviyoAPI:
    client = KlaviyoAPI(box.api_key, max_retries=1, test_host=box.url)
    assert not client.api_client.options.get(USE_DICTIONARY_FOR_RESPONSE_DATA)  # it would turn validation off
    return client


def pages(call: Callable[..., Any], model: type, *ids: str, **asked: Any) -> Iterator[Any]:
    """All pages; each is the vendor's model, and not a dictionary that nothing has checked."""
    assert not any(name.startswith("fields") for name in asked)  # sparse fieldsets turn validation off
    cursor: str | None = None
    while True:
        page = call(*ids, page_cursor=cursor, **asked)
        assert type(page) is model
        yield page
        if page.links.next is None:
            return
        cursor = parse_qs(urlsplit(page.links.next).query)["page[cursor]"][0]


def walk(call: Callable[..., Any], model: type, *ids: str, **asked: Any) -> list[Any]:
    """The rows of all pages, each of them once."""
    rows = [row for page in pages(call, model, *ids, **asked) for row in page.data]
    assert len({row.id for row in rows}) == len(rows)
    return rows


def included(model: Any, page: Any, kind: str) -> list[Any]:
    """The included resources of a kind, which the client leaves unparsed, in the vendor's model."""
    return [model.from_dict(found) for found in page.included if found["type"] == kind]


def test_account(box: Sandbox, client: KlaviyoAPI) -> None:
    """The account is known by the id that the sandbox was started with, in the collection and on its own."""
    answer = client.Accounts.get_accounts()
    assert type(answer) is vendor.GetAccountResponseCollection
    account_id = box.state()["account"]
    assert [row.id for row in answer.data] == [account_id]
    assert client.Accounts.get_account(account_id).data.attributes.public_api_key == account_id


def test_metrics(box: Sandbox, client: KlaviyoAPI) -> None:
    """Every metric is listed by id and name, the one without an integration too."""
    rows = walk(client.Metrics.get_metrics, vendor.GetMetricResponseCollectionCompoundDocument)
    assert {(row.id, row.attributes.name) for row in rows} == {
        (row["id"], row["name"]) for row in box.state()["metrics"]
    }
    assert any(row.attributes.integration is None for row in rows)


def test_campaigns(box: Sandbox, client: KlaviyoAPI) -> None:
    """Each channel's campaigns, and the archived ones that must be asked for, add up; each has its messages."""
    count = 0
    for channel in CHANNELS:
        for archived in ("false", "true"):
            wanted = f"and(equals(messages.channel,'{channel}'),equals(archived,{archived}))"
            found = 0
            for page in pages(
                client.Campaigns.get_campaigns,
                vendor.GetCampaignResponseCollectionCompoundDocument,
                filter=wanted,
                include=["campaign-messages"],
                page_size=50,
            ):
                messages = included(vendor.CampaignMessageResponseObjectResource, page, "campaign-message")
                named = [message.id for row in page.data for message in row.relationships.campaign_messages.data]
                assert sorted(named) == sorted(message.id for message in messages)
                assert {message.attributes.definition["channel"] for message in messages} == {channel}
                assert all(row.attributes.archived == (archived == "true") for row in page.data)
                found += len(page.data)
            assert found > 0, wanted
            count += found
    assert count == box.state()["campaigns"]


def test_messages_of_a_campaign(client: KlaviyoAPI) -> None:
    """A campaign that splits its audience has two messages, and each can be had by its id."""
    rows = walk(
        client.Campaigns.get_campaigns,
        vendor.GetCampaignResponseCollectionCompoundDocument,
        filter="equals(messages.channel,'email')",
    )
    split = next(row for row in rows if row.attributes.send_strategy["method"] == "ab_test_campaign")
    answer = client.Campaigns.get_messages_for_campaign(split.id, include=["campaign"])
    assert type(answer) is vendor.GetCampaignMessageResponseCollectionCompoundDocument
    assert len(answer.data) == 2
    assert [found["id"] for found in answer.included] == [split.id]
    single = client.Campaigns.get_campaign_message(answer.data[0].id)
    assert type(single) is vendor.GetCampaignMessageResponseCompoundDocument
    assert single.data.to_dict() == answer.data[0].to_dict()


def test_flows(box: Sandbox, client: KlaviyoAPI) -> None:
    """Flows that run and archived flows add up."""
    rows = [
        walk(client.Flows.get_flows, vendor.GetFlowResponseCollectionCompoundDocument, filter=wanted, page_size=20)
        for wanted in ("equals(archived,false)", "equals(archived,true)")
    ]
    assert all(rows)
    assert len(rows[0]) + len(rows[1]) == box.state()["flows"]


def test_lists(box: Sandbox, client: KlaviyoAPI) -> None:
    """Every list is there, and each has exactly the members that the account says, joined at a time."""
    known = box.state()["lists"]
    rows = walk(client.Lists.get_lists, vendor.GetListListResponseCollectionCompoundDocument)
    assert {row.id for row in rows} == set(known)
    for list_id, count in known.items():
        members = walk(
            client.Lists.get_profiles_for_list, vendor.GetListMemberResponseCollection, list_id, page_size=100
        )
        ids = walk(
            client.Lists.get_profile_ids_for_list,
            vendor.GetListProfilesRelationshipsResponseCollection,
            list_id,
            page_size=100,
        )
        assert len(members) == count
        assert [row.id for row in ids] == [row.id for row in members]
        assert all(row.attributes.joined_group_at is not None for row in members)


def test_segments(box: Sandbox, client: KlaviyoAPI) -> None:
    """Every segment is there, and each has exactly the members that the account says."""
    known = box.state()["segments"]
    rows = walk(client.Segments.get_segments, vendor.GetSegmentListResponseCollectionCompoundDocument)
    assert {row.id for row in rows} == set(known)
    for segment_id, count in known.items():
        model = vendor.GetSegmentMemberResponseCollection
        assert len(walk(client.Segments.get_profiles_for_segment, model, segment_id, page_size=100)) == count
        ids = vendor.GetSegmentProfilesRelationshipsResponseCollection
        assert len(walk(client.Segments.get_profile_ids_for_segment, ids, segment_id, page_size=100)) == count


def test_profiles(box: Sandbox, client: KlaviyoAPI) -> None:
    """Every profile is there with its subscriptions; those of each suppression reason are just those that bear it."""
    model = vendor.GetProfileResponsePluralConversationsCollectionCompoundDocument
    rows = walk(
        client.Profiles.get_profiles, model, page_size=100, sort="email", additional_fields_profile=["subscriptions"]
    )
    assert {(row.id, row.attributes.email) for row in rows} == {(row["id"], row["email"]) for row in box.profiles()}
    assert len(rows) == box.state()["members"]
    for reason in REASONS:
        suppressed = walk(
            client.Profiles.get_profiles,
            model,
            filter=f'equals(subscriptions.email.marketing.suppression.reason,"{reason}")',
            additional_fields_profile=["subscriptions"],
        )
        bearers = {row.id for row in rows if reason in reasons(row)}
        assert bearers, reason
        assert {row.id for row in suppressed} == bearers


def reasons(row: Any) -> set[str]:
    return {found.reason for found in row.attributes.subscriptions.email.marketing.suppression}


def test_events(box: Sandbox, client: KlaviyoAPI) -> None:
    """Every event is there once, under its metric and profile, and these are included on the same page."""
    seen = []
    for page in pages(
        client.Events.get_events,
        vendor.GetEventResponseCollectionCompoundDocument,
        include=["profile", "metric"],
        page_size=500,
        sort="datetime",
    ):
        profiles = included(vendor.ProfileResponseObjectResource, page, "profile")
        metrics = included(vendor.MetricResponseObjectResource, page, "metric")
        people = {row.relationships.profile.data.id for row in page.data if row.relationships.profile.data}
        assert {profile.id for profile in profiles} == people
        assert {metric.id for metric in metrics} == {row.relationships.metric.data.id for row in page.data}
        seen += page.data
    assert len(seen) == box.state()["events"]
    assert [(row.id, row.attributes.timestamp) for row in seen] == [
        (event["id"], event["timestamp"]) for event in box.events()
    ]
    assert all(int(row.attributes.datetime_.timestamp()) == row.attributes.timestamp for row in seen)


def test_events_of_each_metric(box: Sandbox, client: KlaviyoAPI) -> None:
    """The metric filter gives as many events as the account has of that metric."""
    for metric in box.state()["metrics"]:
        rows = walk(
            client.Events.get_events,
            vendor.GetEventResponseCollectionCompoundDocument,
            filter=f'equals(metric_id,"{metric["id"]}")',
            page_size=1000,
        )
        assert len(rows) == metric["count"], metric["name"]


def test_aggregates(box: Sandbox, client: KlaviyoAPI) -> None:
    """The counts of all days add up to the number of events of the metric."""
    metric = next(row for row in box.state()["metrics"] if row["name"] == "Placed Order")
    answer = client.Metrics.query_metric_aggregates(
        {
            "data": {
                "type": "metric-aggregate",
                "attributes": {
                    "metric_id": metric["id"],
                    "measurements": ["count", "unique", "sum_value"],
                    "filter": [
                        "greater-or-equal(datetime,2026-10-01T00:00:00)",
                        "less-than(datetime,2026-12-01T00:00:00)",
                    ],
                    "interval": "day",
                },
            }
        }
    )
    assert type(answer) is vendor.PostMetricAggregateResponse
    (row,) = answer.data.attributes.data
    assert sum(row.measurements["count"]) == metric["count"]
    assert len(answer.data.attributes.dates) == len(row.measurements["count"]) == 61


@pytest.mark.parametrize(
    ("group", "call", "model"),
    [
        pytest.param("Metrics", "metric", vendor.GetMetricResponseCompoundDocument, id="metric"),
        pytest.param("Campaigns", "campaign", vendor.GetCampaignResponseCompoundDocument, id="campaign"),
        pytest.param("Flows", "flow", vendor.GetFlowV2ResponseCompoundDocument, id="flow"),
        pytest.param("Lists", "list", vendor.GetListRetrieveResponseCompoundDocument, id="list"),
        pytest.param("Segments", "segment", vendor.GetSegmentRetrieveResponseCompoundDocument, id="segment"),
        pytest.param("Profiles", "profile", vendor.GetProfileResponsePluralConversationsCompoundDocument, id="profile"),
        pytest.param("Events", "event", vendor.GetEventResponseCompoundDocument, id="event"),
    ],
)
def test_single_rows(client: KlaviyoAPI, group: str, call: str, model: type) -> None:
    """A row on its own is the row of the collection."""
    api = getattr(client, group)
    asked = {"filter": "equals(messages.channel,'email')"} if call == "campaign" else {}
    listed = getattr(api, f"get_{call}s")(**asked).data[0]
    single = getattr(api, f"get_{call}")(listed.id)
    assert type(single) is model
    assert single.data.model_dump(exclude_none=True) == listed.model_dump(exclude_none=True)


def test_counts_of_members(box: Sandbox, client: KlaviyoAPI) -> None:
    """The number of members comes with a list or segment if it is asked for."""
    state = box.state()
    for list_id, count in state["lists"].items():
        row = client.Lists.get_list(list_id, additional_fields_list=["profile_count"]).data
        assert row.attributes.profile_count == count
    for segment_id, count in state["segments"].items():
        row = client.Segments.get_segment(segment_id, additional_fields_segment=["profile_count"]).data
        assert row.attributes.profile_count == count


def test_metric_and_profile_of_an_event(client: KlaviyoAPI) -> None:
    """An event leads to its metric and its profile."""
    event = client.Events.get_events(filter="has(profile)", page_size=1).data[0]
    metric, profile = client.Events.get_metric_for_event(event.id), client.Events.get_profile_for_event(event.id)
    assert (type(metric), type(profile)) == (vendor.GetMetricResponse, vendor.GetProfileResponse)
    assert metric.data.id == event.relationships.metric.data.id
    assert profile.data.id == event.relationships.profile.data.id


def test_refusal(client: KlaviyoAPI) -> None:
    """A refusal arrives as the vendor's error with its parsed body."""
    with pytest.raises(vendor.ApiException) as refused:
        client.Events.get_event("NOPE01")
    assert refused.value.status == 400
    (error,) = refused.value.data.errors
    assert error.detail == "Invalid Event ID: 'NOPE01'"
