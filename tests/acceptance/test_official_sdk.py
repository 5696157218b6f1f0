"""Klaviyo's own client reads the sandbox: every page of a small account is valid for the vendor's models."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import openapi_client as vendor
import pytest
from klaviyo_api import KlaviyoAPI
from openapi_client.api_arg_options import USE_DICTIONARY_FOR_RESPONSE_DATA

from klaviyo_pg.klaviyo.current.reports import STATISTICS
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
    assert not client.api_client.options.get(USE_DICTIONARY_FOR_RESPONSE_DATA)  # it would disable validation
    return client


def pages(call: Callable[..., Any], model: Any, *ids: str, **parameters: Any) -> Iterator[Any]:
    """Yield all pages. Check that each is the vendor's model and not an unvalidated dictionary."""
    assert not any(name.startswith("fields") for name in parameters)  # sparse fieldsets disable validation
    cursor: str | None = None
    while True:
        page = call(*ids, page_cursor=cursor, **parameters)
        assert type(page) is model
        yield page
        if page.links.next is None:
            return
        cursor = parse_qs(urlsplit(page.links.next).query)["page[cursor]"][0]


def rows_of(call: Callable[..., Any], model: Any, *ids: str, **parameters: Any) -> list[Any]:
    """Return the rows of all pages. Check that no row is repeated."""
    rows = [row for page in pages(call, model, *ids, **parameters) for row in page.data]
    assert len({row.id for row in rows}) == len(rows)
    return rows


def included(model: Any, page: Any, kind: str) -> list[Any]:
    """Return the included resources of a kind, which the client does not parse, as the vendor's model."""
    return [model.from_dict(resource) for resource in page.included if resource["type"] == kind]


def test_the_account_has_the_id_of_the_sandbox(box: Sandbox, client: KlaviyoAPI) -> None:
    """The collection and the single row have this id."""
    answer = client.Accounts.get_accounts()
    assert type(answer) is vendor.GetAccountResponseCollection
    account_id = box.state()["account"]
    assert [row.id for row in answer.data] == [account_id]
    assert client.Accounts.get_account(account_id).data.attributes.public_api_key == account_id


def test_all_metrics_are_listed(box: Sandbox, client: KlaviyoAPI) -> None:
    """One of them has no integration."""
    rows = rows_of(client.Metrics.get_metrics, vendor.GetMetricResponseCollectionCompoundDocument)
    assert {(row.id, row.attributes.name) for row in rows} == {
        (row["id"], row["name"]) for row in box.state()["metrics"]
    }
    assert any(row.attributes.integration is None for row in rows)


def test_custom_and_mapped_metrics_are_listed_with_their_metrics(client: KlaviyoAPI) -> None:
    """A mapping has a metric, a custom metric, or neither."""
    answer = client.Metrics.get_custom_metrics(include=["metrics"])
    assert type(answer) is vendor.GetCustomMetricResponseCollectionCompoundDocument
    metrics = {group.metric_id for row in answer.data for group in row.attributes.definition.metric_groups}
    assert metrics == {each.id for row in answer.data for each in row.relationships.metrics.data}
    assert metrics == {each.id for each in answer.included}
    mapped = client.Metrics.get_mapped_metrics(include=["metric", "custom-metric"])
    assert type(mapped) is vendor.GetMappedMetricResponseCollectionCompoundDocument
    related = {row.id: (row.relationships.metric.data, row.relationships.custom_metric.data) for row in mapped.data}
    assert len(related) == 7
    assert related["revenue"][0] is not None and related["revenue"][1] is None
    assert related["added_to_cart"][1].id in {row.id for row in answer.data}
    assert related["started_checkout"] == (None, None)


def check_tags(page: Any) -> None:
    """Check that a page includes the tags that its rows refer to."""
    tags = {tag.id for tag in included(vendor.TagResponseObjectResource, page, "tag")}
    assert tags == {tag.id for row in page.data for tag in row.relationships.tags.data}


def test_all_tags_are_listed_with_their_groups(client: KlaviyoAPI) -> None:
    """Lists and segments include the tags that are on them."""
    [page] = pages(client.Tags.get_tags, vendor.GetTagResponseCollectionCompoundDocument, include=["tag-group"])
    assert {tag.relationships.tag_group.data.id for tag in page.data} == {group.id for group in page.included}
    assert {(group.attributes.exclusive, group.attributes.default) for group in page.included} >= {(False, True)}
    names = {tag.id: tag.attributes.name for tag in page.data}
    for call, model in (
        (client.Lists.get_lists, vendor.GetListListResponseCollectionCompoundDocument),
        (client.Segments.get_segments, vendor.GetSegmentListResponseCollectionCompoundDocument),
    ):
        for groups in pages(call, model, include=["tags"]):
            check_tags(groups)
            assert {tag["id"] for tag in groups.included} <= set(names)


def test_all_templates_forms_and_images_are_listed(client: KlaviyoAPI) -> None:
    """Templates take several pages, forms have versions, and hidden images are listed on request."""
    templates = rows_of(client.Templates.get_templates, vendor.GetTemplateDndResponseCollection, sort="updated")
    assert len(templates) > 20 and all(row.attributes.html for row in templates)
    assert client.Templates.get_template(templates[0].id).data.attributes.name == templates[0].attributes.name
    forms = rows_of(client.Forms.get_forms, vendor.GetFormResponseCollection, sort="updated_at")
    model = vendor.GetFormVersionResponseCollection
    versions = {form.id: rows_of(client.Forms.get_versions_for_form, model, form.id) for form in forms}
    assert {len(each) for each in versions.values()} == {1, 2, 3}
    assert {row.attributes.ab_test is None for each in versions.values() for row in each} == {True, False}
    shown = rows_of(client.Images.get_images, vendor.GetImageResponseCollection, sort="updated_at")
    hidden = rows_of(client.Images.get_images, vendor.GetImageResponseCollection, filter="equals(hidden,true)")
    assert {row.attributes.hidden for row in shown} == {False} and {row.attributes.hidden for row in hidden} == {True}


def test_the_catalog_is_listed(client: KlaviyoAPI) -> None:
    """Items include their variants, which refer to them."""
    model = vendor.GetCatalogItemResponseCollectionCompoundDocument
    found = list(pages(client.Catalogs.get_catalog_items, model, include=["variants"], page_size=5))
    items = {item.id: item for page in found for item in page.data}
    related = {each.id for item in items.values() for each in item.relationships.variants.data}
    assert related == {each.id for page in found for each in page.included}
    variants = rows_of(client.Catalogs.get_catalog_variants, vendor.GetCatalogVariantResponseCollection)
    assert {row.id for row in variants} == related and {row.relationships.item.data.id for row in variants} < set(items)
    categories = rows_of(client.Catalogs.get_catalog_categories, vendor.GetCatalogCategoryResponseCollection)
    assert len(categories) == 3 and len(items) == 12


def test_coupons_are_listed_with_their_codes(client: KlaviyoAPI) -> None:
    """Codes are listed of one coupon at a time, and some are assigned to people."""
    coupons = rows_of(client.Coupons.get_coupons, vendor.GetCouponResponseCollection)
    model = vendor.GetCouponCodeResponseCollectionCompoundDocument
    codes = [rows_of(client.Coupons.get_coupon_codes, model, f'equals(coupon.id,"{row.id}")') for row in coupons]
    assert [len(each) for each in codes] == [0, 15, 30]
    assert {row.attributes.status for row in codes[1]} == {"UNASSIGNED", "ASSIGNED_TO_PROFILE", "USED"}
    assert all(row.relationships.coupon.data.id == coupons[1].id for row in codes[1])


def test_reviews_and_push_tokens_are_listed(client: KlaviyoAPI) -> None:
    """Reviews are listed by the time of their last change. Push tokens have their owners, who are included."""
    model = vendor.GetReviewResponseDTOCollectionCompoundDocument
    times = [row.attributes.updated for row in rows_of(client.Reviews.get_reviews, model, sort="-updated")]
    assert len(times) == 9 and times == sorted(times, reverse=True)
    model = vendor.GetPushTokenResponseCollectionCompoundDocument
    tokens = rows_of(client.Profiles.get_push_tokens, model, include=["profile"])
    owners = {row.relationships.profile.data.id for row in tokens}
    assert len(tokens) > len(owners) == 9


def test_profiles_have_predictions(client: KlaviyoAPI) -> None:
    """Some people have no predictions: all values are null."""
    page = client.Profiles.get_profiles(additional_fields_profile=["predictive_analytics"])
    found = [row.attributes.predictive_analytics.churn_probability for row in page.data]
    assert None in found and any(found)


def test_all_campaigns_are_listed_with_their_messages(box: Sandbox, client: KlaviyoAPI) -> None:
    """Each channel and each archived state needs its own request."""
    count = 0
    for channel in CHANNELS:
        for archived in ("false", "true"):
            filters = f"and(equals(messages.channel,'{channel}'),equals(archived,{archived}))"
            count_of_filter = 0
            for page in pages(
                client.Campaigns.get_campaigns,
                vendor.GetCampaignResponseCollectionCompoundDocument,
                filter=filters,
                include=["campaign-messages", "tags"],
                page_size=50,
            ):
                check_tags(page)
                messages = included(vendor.CampaignMessageResponseObjectResource, page, "campaign-message")
                message_ids = [message.id for row in page.data for message in row.relationships.campaign_messages.data]
                assert sorted(message_ids) == sorted(message.id for message in messages)
                assert {message.attributes.definition["channel"] for message in messages} == {channel}
                assert all(row.attributes.archived == (archived == "true") for row in page.data)
                count_of_filter += len(page.data)
            assert count_of_filter > 0, filters
            count += count_of_filter
    assert count == box.state()["campaigns"]


def test_an_ab_campaign_has_two_messages(client: KlaviyoAPI) -> None:
    """Each message can also be read by its id."""
    rows = rows_of(
        client.Campaigns.get_campaigns,
        vendor.GetCampaignResponseCollectionCompoundDocument,
        filter="equals(messages.channel,'email')",
    )
    ab_test = next(row for row in rows if row.attributes.send_strategy["method"] == "ab_test_campaign")
    answer = client.Campaigns.get_messages_for_campaign(ab_test.id, include=["campaign"])
    assert type(answer) is vendor.GetCampaignMessageResponseCollectionCompoundDocument
    assert len(answer.data) == 2
    assert [resource["id"] for resource in answer.included] == [ab_test.id]
    single = client.Campaigns.get_campaign_message(answer.data[0].id)
    assert type(single) is vendor.GetCampaignMessageResponseCompoundDocument
    assert single.data.to_dict() == answer.data[0].to_dict()


def test_all_flows_are_listed_with_their_actions(box: Sandbox, client: KlaviyoAPI) -> None:
    """Archived and unarchived flows add up to all flows, and each action belongs to one of them."""
    flows = []
    for condition in ("equals(archived,false)", "equals(archived,true)"):
        of_condition = []
        for page in pages(
            client.Flows.get_flows,
            vendor.GetFlowResponseCollectionCompoundDocument,
            filter=condition,
            include=["flow-actions", "tags"],
            page_size=20,
        ):
            check_tags(page)
            actions = included(vendor.FlowActionEncodedResponseObjectResource, page, "flow-action")
            referred = {action.id: row.id for row in page.data for action in row.relationships.flow_actions.data}
            assert {action.id: action.relationships.flow.data.id for action in actions} == referred
            assert all(action.attributes.definition["id"] == action.id for action in actions)
            of_condition += page.data
        assert of_condition
        flows += of_condition
    assert len({row.id for row in flows}) == len(flows) == box.state()["flows"]


def test_all_lists_and_their_members_are_listed(box: Sandbox, client: KlaviyoAPI) -> None:
    """Each member has a time of joining, and the relationship returns the same members."""
    counts = box.state()["lists"]
    rows = rows_of(client.Lists.get_lists, vendor.GetListListResponseCollectionCompoundDocument)
    assert {row.id for row in rows} == set(counts)
    for list_id, count in counts.items():
        members = rows_of(
            client.Lists.get_profiles_for_list, vendor.GetListMemberResponseCollection, list_id, page_size=100
        )
        ids = rows_of(
            client.Lists.get_profile_ids_for_list,
            vendor.GetListProfilesRelationshipsResponseCollection,
            list_id,
            page_size=100,
        )
        assert len(members) == count
        assert [row.id for row in ids] == [row.id for row in members]
        assert all(row.attributes.joined_group_at is not None for row in members)


def test_all_segments_and_their_members_are_listed(box: Sandbox, client: KlaviyoAPI) -> None:
    counts = box.state()["segments"]
    rows = rows_of(client.Segments.get_segments, vendor.GetSegmentListResponseCollectionCompoundDocument)
    assert {row.id for row in rows} == set(counts)
    for segment_id, count in counts.items():
        model = vendor.GetSegmentMemberResponseCollection
        assert len(rows_of(client.Segments.get_profiles_for_segment, model, segment_id, page_size=100)) == count
        ids = vendor.GetSegmentProfilesRelationshipsResponseCollection
        assert len(rows_of(client.Segments.get_profile_ids_for_segment, ids, segment_id, page_size=100)) == count


def test_all_profiles_are_listed_with_their_suppressions(box: Sandbox, client: KlaviyoAPI) -> None:
    """The filter for a suppression reason returns exactly the profiles with that reason."""
    model = vendor.GetProfileResponsePluralConversationsCollectionCompoundDocument
    rows = rows_of(
        client.Profiles.get_profiles, model, page_size=100, sort="email", additional_fields_profile=["subscriptions"]
    )
    assert {(row.id, row.attributes.email) for row in rows} == {(row["id"], row["email"]) for row in box.profiles()}
    assert len(rows) == box.state()["members"]
    for reason in REASONS:
        suppressed = rows_of(
            client.Profiles.get_profiles,
            model,
            filter=f'equals(subscriptions.email.marketing.suppression.reason,"{reason}")',
            additional_fields_profile=["subscriptions"],
        )
        expected = {row.id for row in rows if reason in reasons(row)}
        assert expected, reason
        assert {row.id for row in suppressed} == expected


def reasons(row: Any) -> set[str]:
    return {entry.reason for entry in row.attributes.subscriptions.email.marketing.suppression}


def test_all_events_are_listed_once(box: Sandbox, client: KlaviyoAPI) -> None:
    """The metric, the profile and the attributions of each event are included on the same page."""
    events: list[Any] = []
    attributed = 0
    for page in pages(
        client.Events.get_events,
        vendor.GetEventResponseCollectionCompoundDocument,
        include=["attributions", "profile", "metric"],
        page_size=500,
        sort="datetime",
    ):
        profiles = included(vendor.ProfileResponseObjectResource, page, "profile")
        metrics = included(vendor.MetricResponseObjectResource, page, "metric")
        people = {row.relationships.profile.data.id for row in page.data if row.relationships.profile.data}
        assert {profile.id for profile in profiles} == people
        assert {metric.id for metric in metrics} == {row.relationships.metric.data.id for row in page.data}
        references = {
            row.id: row.relationships.attributions.data for row in page.data if row.relationships.attributions
        }
        attributions = {each["id"]: each["relationships"] for each in page.included if each["type"] == "attribution"}
        assert {each.id for several in references.values() for each in several} == set(attributions)
        assert {each["event"]["data"]["id"] for each in attributions.values()} == set(references)
        events, attributed = events + page.data, attributed + len(attributions)
    assert attributed > 0
    assert len(events) == box.state()["events"]
    assert [(row.id, row.attributes.timestamp) for row in events] == [
        (event["id"], event["timestamp"]) for event in box.events()
    ]
    assert all(int(row.attributes.datetime_.timestamp()) == row.attributes.timestamp for row in events)


def test_the_metric_filter_returns_the_events_of_the_metric(box: Sandbox, client: KlaviyoAPI) -> None:
    for metric in box.state()["metrics"]:
        rows = rows_of(
            client.Events.get_events,
            vendor.GetEventResponseCollectionCompoundDocument,
            filter=f'equals(metric_id,"{metric["id"]}")',
            page_size=1000,
        )
        assert len(rows) == metric["count"], metric["name"]


def test_aggregated_counts_add_up_to_the_events_of_the_metric(box: Sandbox, client: KlaviyoAPI) -> None:
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
def test_a_single_row_equals_the_row_in_its_collection(client: KlaviyoAPI, group: str, call: str, model: Any) -> None:
    api = getattr(client, group)
    parameters = {"filter": "equals(messages.channel,'email')"} if call == "campaign" else {}
    listed = getattr(api, f"get_{call}s")(**parameters).data[0]
    single = getattr(api, f"get_{call}")(listed.id)
    assert type(single) is model
    assert single.data.model_dump(exclude_none=True) == listed.model_dump(exclude_none=True)


def test_lists_and_segments_have_a_member_count_on_request(box: Sandbox, client: KlaviyoAPI) -> None:
    state = box.state()
    for list_id, count in state["lists"].items():
        row = client.Lists.get_list(list_id, additional_fields_list=["profile_count"]).data
        assert row.attributes.profile_count == count
    for segment_id, count in state["segments"].items():
        row = client.Segments.get_segment(segment_id, additional_fields_segment=["profile_count"]).data
        assert row.attributes.profile_count == count


def report_body(kind: str, form: str, **more: Any) -> Any:
    """Return a request for a report as the vendor's model, which checks the names of statistics and groups."""
    prefix = f"{kind.title()}{form.title()}Request"
    ids = [f"{kind}_id", f"{kind}_message_id"]
    attributes = {"timeframe": {"key": "last_30_days"}, "group_by": [*ids, "send_channel", "variation"], **more}
    data = {"type": f"{kind}-{form}-report", "attributes": {"statistics": list(STATISTICS), **attributes}}
    return getattr(vendor, f"{prefix}DTO").from_dict({"data": data})


def test_reports_are_valid_for_the_vendors_models(box: Sandbox, client: KlaviyoAPI) -> None:
    """Campaigns and flows have values of all statistics, and those of flows by day add up to them."""
    metric_id = next(row["id"] for row in box.state()["metrics"] if row["name"] == "Placed Order")
    reporting, opens = client.Reporting, dict[str, float]()
    for kind, call in (("campaign", reporting.query_campaign_values), ("flow", reporting.query_flow_values)):
        answer = call(report_body(kind, "values", conversion_metric_id=metric_id))
        assert type(answer) is getattr(vendor, f"Post{kind.title()}ValuesResponseDTO")
        results = answer.data.attributes.results
        assert all(set(row.statistics) == set(STATISTICS) for row in results) and len(results) > 20
        opens[kind] = sum(row.statistics["opens"] for row in results)
    body = report_body("flow", "series", conversion_metric_id=metric_id, interval="daily")
    series = reporting.query_flow_series(body)
    assert type(series) is vendor.PostFlowSeriesResponseDTO
    assert len(series.data.attributes.date_times) == 30
    assert sum(sum(row.statistics["opens"]) for row in series.data.attributes.results) == opens["flow"] > 0
    with pytest.raises(vendor.ApiException) as refused:
        reporting.query_flow_values(report_body("flow", "values", conversion_metric_id="NOPE"))
    assert refused.value.status == 400


def test_the_metric_and_profile_of_an_event_can_be_read(client: KlaviyoAPI) -> None:
    event = client.Events.get_events(filter="has(profile)", page_size=1).data[0]
    metric, profile = client.Events.get_metric_for_event(event.id), client.Events.get_profile_for_event(event.id)
    assert (type(metric), type(profile)) == (vendor.GetMetricResponse, vendor.GetProfileResponse)
    assert metric.data.id == event.relationships.metric.data.id
    assert profile.data.id == event.relationships.profile.data.id


def test_an_error_response_raises_the_vendors_error(client: KlaviyoAPI) -> None:
    """The body of the error is parsed."""
    with pytest.raises(vendor.ApiException) as refused:
        client.Events.get_event("NOPE01")
    assert refused.value.status == 400
    (error,) = refused.value.data.errors
    assert error.detail == "Invalid Event ID: 'NOPE01'"
