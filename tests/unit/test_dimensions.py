"""The frames of metrics, campaigns, flows, lists and segments."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

import polars as pl
import pytest

from klaviyo_pg.catalogue import loads
from klaviyo_pg.rows import Campaign, CampaignMessage, Flow, FlowAction, FlowMessage, Group, Metric, Tag, TagGroup
from transforms import dimensions, membership, messages, tags

ACCOUNT = "account-1"
CREATED, UPDATED, SENT = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3))


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def campaign(
    row_id: str = "c1",
    included: tuple[str, ...] = (),
    excluded: tuple[str, ...] = (),
    messages: Sequence[CampaignMessage] = (),
) -> Campaign:
    """Return a campaign that is sent to these audiences."""
    return Campaign(
        row_id,
        "Spring",
        "L1",
        "shop@example.com",
        "Shop",
        "Hi",
        "Sent",
        SENT,
        "email",
        CREATED,
        UPDATED,
        included,
        excluded,
        archived=True,
        scheduled_at=CREATED,
        messages=messages,
    )


def test_all_columns_of_a_metric_are_filled() -> None:
    """The destination is the given one, and `events` for a metric without one."""
    metrics = [
        Metric("m1", "Opened Email", "Email", CREATED, UPDATED, "i1", "Klaviyo"),
        Metric("m2", None, None, None, None),
    ]
    frame = dimensions.metrics(metrics, {"m1": "opens"}, ACCOUNT).frame
    assert dict(frame.schema) == loads.METRICS.schema
    assert frame.rows(named=True) == [
        {
            "key": md5(f"Klaviyo:{ACCOUNT}:m1"),
            "id": "m1",
            "name": "Opened Email",
            "source": "Email",
            "destination": "opens",
            "created_at": CREATED,
            "updated_at": UPDATED,
            "integration_id": "i1",
            "integration_name": "Klaviyo",
        },
        {
            "key": md5(f"Klaviyo:{ACCOUNT}:m2"),
            "id": "m2",
            **dict.fromkeys(("name", "source", "created_at", "updated_at", "integration_id", "integration_name")),
            "destination": "events",
        },
    ]


def test_all_columns_of_a_campaign_are_filled() -> None:
    """Its `list_key` is the unchanged id of the list, and it has no automation."""
    frame = dimensions.campaigns([campaign()], ACCOUNT).frame
    assert dict(frame.schema) == loads.CAMPAIGNS.schema
    assert frame.row(0, named=True) == {
        "key": md5(f"Klaviyo:{ACCOUNT}:c1"),
        "id": "c1",
        "name": "Spring",
        "parent_campaign_key": None,
        "automation_key": None,
        "automation_position": None,
        "list_key": "L1",
        "from_email": "shop@example.com",
        "from_name": "Shop",
        "subject": "Hi",
        "status": "Sent",
        "sent_at": SENT,
        "campaign_type": "email",
        "type": "Campaign",
        "created_at": CREATED,
        "updated_at": UPDATED,
        "campaign_key": md5("c1"),
        "archived": True,
        "scheduled_at": CREATED,
        "first_list_key": md5(f"Klaviyo:{ACCOUNT}:L1"),
        "is_placeholder": False,
    }


def test_all_columns_of_a_campaign_message_are_filled() -> None:
    """Its `message_key` is the `campaign_key` of events that have its id as $message."""
    texts = ("email", "A", "Hi", "Soon", "Body", "s@example.com", "Shop", "r@example.com", "T1", "Sent")
    message = CampaignMessage("m1", "c1", *texts, CREATED, SENT, False, CREATED, UPDATED, "m0")
    frame = messages.campaign_messages([campaign(messages=[message]), campaign("c2")], ACCOUNT).frame
    assert dict(frame.schema) == loads.CAMPAIGN_MESSAGES.schema
    assert frame.rows(named=True) == [
        {
            "key": md5(f"Klaviyo:{ACCOUNT}:m1"),
            "id": "m1",
            "campaign_id": "c1",
            "campaign_key": md5("c1"),
            "message_key": md5("m1"),
            "channel": "email",
            "label": "A",
            "subject": "Hi",
            "preview_text": "Soon",
            "body": "Body",
            "from_email": "s@example.com",
            "from_name": "Shop",
            "reply_to_email": "r@example.com",
            "template_id": "T1",
            "status": "Sent",
            "send_at": CREATED,
            "last_send_at": SENT,
            "is_local": False,
            "variation_of": "m0",
            "created_at": CREATED,
            "updated_at": UPDATED,
        }
    ]


@pytest.mark.parametrize(
    ("included", "excluded", "audiences"),
    [
        pytest.param(("L1", "S1"), ("L2",), {("L1", "included"), ("S1", "included"), ("L2", "excluded")}, id="both"),
        pytest.param(("L1", "L1"), (), {("L1", "included")}, id="named twice"),
        pytest.param(("L1",), ("L1",), {("L1", "included")}, id="included and excluded"),
        pytest.param(("",), (), set(), id="an empty id"),
        pytest.param((), (), set(), id="none"),
    ],
)
def test_each_audience_of_a_campaign_is_a_row(
    included: tuple[str, ...], excluded: tuple[str, ...], audiences: set[tuple[str, str]]
) -> None:
    """The key combines list and campaign. One more row without a key marks the campaign as complete."""
    whole = dimensions.campaign_lists([campaign("c1", included, excluded)], ACCOUNT).frame
    assert dict(whole.schema) == loads.CAMPAIGN_LISTS.schema
    assert whole.filter(pl.col("key").is_null()).get_column("campaign_id").to_list() == ["c1"]
    frame = whole.drop_nulls("key")
    assert frame.height == len(audiences)
    assert set(frame.select("list_id", "audience").rows()) == audiences
    for row in frame.rows(named=True):
        assert row["id"] == f"{row['list_id']}:c1"
        assert row["campaign_id"] == "c1"
        assert row["key"] == md5(f"Klaviyo:{ACCOUNT}:{row['id']}")


def test_all_columns_of_an_automation_are_filled() -> None:
    """Its `automation_key` is the one that events have."""
    flow = Flow("f1", "Welcome", "live", CREATED, UPDATED, True, "Metric", [FlowAction("a1", "f1")])
    frame = dimensions.automations([flow], ACCOUNT).frame
    assert dict(frame.schema) == loads.AUTOMATIONS.schema
    assert frame.row(0, named=True) == {
        "key": md5(f"Klaviyo:{ACCOUNT}:f1"),
        "id": "f1",
        "name": "Welcome",
        "created_at": CREATED,
        "updated_at": UPDATED,
        "status": "live",
        "automation_key": md5("f1"),
        "archived": True,
        "trigger_type": "Metric",
        "is_placeholder": False,
    }


def test_all_columns_of_an_action_of_a_flow_are_filled() -> None:
    """Its definition is stored without NUL, which jsonb cannot hold."""
    action = FlowAction("a1", "f1", "send-email", "live", "a2", "a3", "a4", r'{"a":"\u0000b"}', CREATED, UPDATED)
    cleaned = messages.flow_actions([Flow("f1", None, None, None, None, actions=[action])], ACCOUNT)
    assert dict(cleaned.frame.schema) == loads.FLOW_ACTIONS.schema
    assert cleaned.frame.rows(named=True) == [
        {
            "key": md5(f"Klaviyo:{ACCOUNT}:a1"),
            "id": "a1",
            "flow_id": "f1",
            "automation_key": md5("f1"),
            "action_type": "send-email",
            "status": "live",
            "next_id": "a2",
            "next_if_true_id": "a3",
            "next_if_false_id": "a4",
            "definition": '{"a":"b"}',
            "created_at": CREATED,
            "updated_at": UPDATED,
        }
    ]
    assert cleaned.nul_characters == 1


def test_all_columns_of_a_message_of_a_flow_are_filled() -> None:
    """Its `message_key` is the `campaign_key` of events that have its id as $message."""
    texts = ("email", "One", "Hi", "Soon", "Body", "s@example.com", "Shop", "r@example.com", "T1", "live")
    message = FlowMessage("m1", "f1", "a1", *texts, True, False, True, CREATED, UPDATED)
    frame = messages.flow_messages([Flow("f1", None, None, None, None, messages=[message])], ACCOUNT).frame
    assert dict(frame.schema) == loads.FLOW_MESSAGES.schema
    assert frame.rows(named=True) == [
        {
            "key": md5(f"Klaviyo:{ACCOUNT}:m1"),
            "id": "m1",
            "flow_id": "f1",
            "automation_key": md5("f1"),
            "flow_action_id": "a1",
            "message_key": md5("m1"),
            "channel": "email",
            "name": "One",
            "subject": "Hi",
            "preview_text": "Soon",
            "body": "Body",
            "from_email": "s@example.com",
            "from_name": "Shop",
            "reply_to_email": "r@example.com",
            "template_id": "T1",
            "status": "live",
            "is_transactional": True,
            "uses_smart_sending": False,
            "is_variation": True,
            "created_at": CREATED,
            "updated_at": UPDATED,
        }
    ]


def test_all_columns_of_tags_and_their_groups_are_filled() -> None:
    """A tag without a group has no key of one."""
    frame = tags.tags([Tag("t1", "VIP", "g1"), Tag("t2")], ACCOUNT).frame
    assert dict(frame.schema) == loads.TAGS.schema
    assert frame.rows() == [
        (md5(f"Klaviyo:{ACCOUNT}:t1"), "t1", "VIP", "g1", md5(f"Klaviyo:{ACCOUNT}:g1")),
        (md5(f"Klaviyo:{ACCOUNT}:t2"), "t2", None, None, None),
    ]
    groups = tags.tag_groups([TagGroup("g1", "Market", True, False)], ACCOUNT).frame
    assert dict(groups.schema) == loads.TAG_GROUPS.schema
    assert groups.rows() == [(md5(f"Klaviyo:{ACCOUNT}:g1"), "g1", "Market", True, False)]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        pytest.param(("t1", "t2"), {"t1", "t2"}, id="two"),
        pytest.param(("t1", "t1", "t\0001"), {"t1"}, id="one named twice, once with a NUL"),
        pytest.param(("", "\0"), set(), id="empty ids"),
        pytest.param((), set(), id="none"),
        pytest.param(None, None, id="unknown"),
    ],
)
def test_each_tag_of_an_object_is_a_row(ids: Sequence[str] | None, expected: set[str] | None) -> None:
    """One more row without a key marks the object's tags as complete, unless they are unknown."""
    frame = tags.tagged([Group("L1", None, None, tags=ids)], "list", ACCOUNT).frame
    assert dict(frame.schema) == loads.TAGGED_OBJECTS.schema
    object_key = md5(f"Klaviyo:{ACCOUNT}:L1")
    rows = [
        (
            *(md5(f"Klaviyo:{ACCOUNT}:{each}:list:L1"), f"{each}:list:L1", each, md5(f"Klaviyo:{ACCOUNT}:{each}")),
            *("list", "L1", object_key),
        )
        for each in sorted(expected or ())
    ]
    marker = [] if expected is None else [(None, None, None, None, None, None, object_key)]
    assert frame.sort("id", nulls_last=False).rows() == [*marker, *rows]


@pytest.mark.parametrize("list_type", ["list", "segment"])
def test_all_columns_of_a_list_are_filled(list_type: str) -> None:
    """Lists and segments share a table and differ by `list_type`."""
    frame = dimensions.groups([Group("L1", "News", CREATED, CREATED)], list_type, ACCOUNT).frame
    assert dict(frame.schema) == loads.LISTS.schema
    assert frame.row(0, named=True) == {
        "key": md5(f"Klaviyo:{ACCOUNT}:L1"),
        "id": "L1",
        "name": "News",
        "list_type": list_type,
        "status": None,
        "rating": None,
        "created_at": CREATED,
        "updated_at": CREATED,
        "archived_at": None,
    }


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(
            dimensions.metrics([Metric(each, each, None, None, None) for each in ("a", "a\x00")], {}, ACCOUNT).frame,
            id="metrics",
        ),
        pytest.param(dimensions.campaigns([campaign("a"), campaign("a\x00")], ACCOUNT).frame, id="campaigns"),
        pytest.param(
            dimensions.automations([Flow(each, each, None, None, None) for each in ("a", "a\x00")], ACCOUNT).frame,
            id="automations",
        ),
        pytest.param(
            dimensions.groups([Group(each, each, None) for each in ("a", "a\x00")], "list", ACCOUNT).frame, id="lists"
        ),
    ],
)
def test_each_key_has_one_row(frame: pl.DataFrame) -> None:
    """Ids that differ only by a NUL are equal, and an upsert accepts one row for each key."""
    assert frame["id"].to_list() == ["a"]


def test_no_rows_make_empty_frames() -> None:
    """The empty frames have the schema of their loads."""
    frames = [
        (loads.METRICS, dimensions.metrics([], {}, ACCOUNT).frame),
        (loads.CAMPAIGNS, dimensions.campaigns([], ACCOUNT).frame),
        (loads.CAMPAIGN_LISTS, dimensions.campaign_lists([], ACCOUNT).frame),
        (loads.CAMPAIGN_MESSAGES, messages.campaign_messages([], ACCOUNT).frame),
        (loads.AUTOMATIONS, dimensions.automations([], ACCOUNT).frame),
        (loads.FLOW_ACTIONS, messages.flow_actions([], ACCOUNT).frame),
        (loads.FLOW_MESSAGES, messages.flow_messages([], ACCOUNT).frame),
        (loads.LISTS, dimensions.groups([], "list", ACCOUNT).frame),
        (loads.SEGMENTS, dimensions.segments([], ACCOUNT).frame),
        (loads.SEGMENT_MEMBERS, membership.segment_members([], ACCOUNT).frame),
        (loads.TAGS, tags.tags([], ACCOUNT).frame),
        (loads.TAG_GROUPS, tags.tag_groups([], ACCOUNT).frame),
        (loads.TAGGED_OBJECTS, tags.tagged([], "list", ACCOUNT).frame),
    ]
    for load, frame in frames:
        assert frame.is_empty() and dict(frame.schema) == load.schema
