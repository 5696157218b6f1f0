"""The messages of campaigns and flows, and what the $message of events is resolved to."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from klaviyo_pg.errors import Incomplete
from klaviyo_pg.rows import Campaign, CampaignMessage, Flow, FlowAction, FlowMessage, Reject
from tests.fakes import LONG_AGO, FakeAccount
from tests.integration.pipeline.conftest import Warehouse, days_ago
from tests.rows import campaign_row

ONLY = ("campaign_messages", "flow_messages")  # the streams that a run reads
TABLES = ("campaign_messages", "flow_messages", "flow_actions")
DELETED = "SELECT id, deleted_at IS NOT NULL FROM {} ORDER BY id"


def campaign(row_id: str, *messages: str, **fields: Any) -> Campaign:
    """Return a campaign with messages of these ids."""
    values = {"list_id": "L1", "included": ("L1",), "status": "Sent", **fields}
    made = [CampaignMessage(each, row_id, "email", subject=f"About {each}", status="Sent") for each in messages]
    return campaign_row(row_id, **values | {"name": f"Campaign {row_id}", "messages": made})


def flow(row_id: str, *messages: str) -> Flow:
    """Return a flow with an action for each message."""
    definition = '{"type": "send-email", "data": {"to": "ada@example.com"}}'
    actions = [FlowAction(f"A-{each}", row_id, "send-email", "live", definition=definition) for each in messages]
    sent = [FlowMessage(each, row_id, f"A-{each}", "email", each, f"About {each}") for each in messages]
    return Flow(row_id, "Welcome", "live", LONG_AGO, LONG_AGO, False, "Metric", actions, sent)


@pytest.fixture(autouse=True)
def sent(shop: FakeAccount) -> None:
    """Give the account a campaign with one message, one that tests two variants, and a flow with two messages."""
    shop.campaigns += [campaign("C1", "M1", archived=False), campaign("C2", "M2A", "M2B", archived=True)]
    shop.flows.append(flow("F1", "F1-A", "F1-B"))


def marked(warehouse: Warehouse, table: str) -> dict[str, bool]:
    """Return of each row of a table if it is marked as deleted."""
    return dict(warehouse.rows(DELETED.format(table)))


def test_messages_are_stored_with_their_campaign(warehouse: Warehouse) -> None:
    """A second run changes nothing. The key of the first list joins to lists."""
    assert warehouse.daily(*ONLY).state == "complete"
    assert warehouse.rows("SELECT campaign_id, id, subject, status FROM campaign_messages ORDER BY id") == [
        ("C1", "M1", "About M1", "Sent"),
        ("C2", "M2A", "About M2A", "Sent"),
        ("C2", "M2B", "About M2B", "Sent"),
    ]
    joined = "SELECT c.id, c.archived, l.id FROM campaigns c JOIN lists l ON l.key = c.first_list_key ORDER BY 1"
    assert warehouse.rows(joined) == [("C1", False, "L1"), ("C2", True, "L1")]
    assert warehouse.rows("SELECT id, archived, trigger_type FROM automations") == [("F1", False, "Metric")]
    joined = (
        "SELECT m.id, m.subject, a.action_type FROM flow_messages m JOIN automations f USING (automation_key)"
        " JOIN flow_actions a ON a.id = m.flow_action_id ORDER BY 1"
    )
    assert warehouse.rows(joined) == [(each, f"About {each}", "send-email") for each in ("F1-A", "F1-B")]
    assert warehouse.daily(*ONLY).changed() == {}


def test_deleted_messages_are_marked_until_they_are_back(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A message can be deleted alone or with its campaign, and an action with its flow or alone."""
    campaigns, flows = list(shop.campaigns), list(shop.flows)
    warehouse.daily(*ONLY)
    shop.campaigns[:], shop.flows[:] = [campaign("C2", "M2A")], [flow("F1", "F1-B")]
    warehouse.daily(*ONLY)
    assert marked(warehouse, "campaign_messages") == {"M1": True, "M2A": False, "M2B": True}
    assert marked(warehouse, "flow_messages") == {"F1-A": True, "F1-B": False}
    assert marked(warehouse, "flow_actions") == {"A-F1-A": True, "A-F1-B": False}
    shop.campaigns[:], shop.flows[:] = campaigns, flows
    warehouse.daily(*ONLY)
    assert not any(deleted for table in TABLES for deleted in marked(warehouse, table).values())


def test_a_read_with_gaps_marks_no_message(warehouse: Warehouse, shop: FakeAccount) -> None:
    """A campaign that cannot be read, or a channel that is refused, may hide messages."""
    warehouse.daily(*ONLY)
    shop.campaigns.pop()
    shop.flows.pop()
    shop.unreadable |= {(kind, 0): Reject('{"id": "X"}', "Odd.") for kind in ("campaigns", "flows")}
    warehouse.daily(*ONLY)
    assert not any(deleted for table in TABLES for deleted in marked(warehouse, table).values())
    shop.unreadable.clear()
    shop.incomplete |= {kind: Incomplete(["a part"], "No.") for kind in ("campaigns", "flows")}
    warehouse.daily(*ONLY)
    assert not any(deleted for table in TABLES for deleted in marked(warehouse, table).values())


def test_accounts_keep_their_messages_apart(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Two accounts with equal ids have separate rows, and a deletion concerns one account."""
    other = FakeAccount(account_id="OTHER", campaigns=list(shop.campaigns))
    second = replace(warehouse.variant(klaviyo_integration="other"), open_source=other.open)
    warehouse.daily(*ONLY)
    second.daily(*ONLY)
    other.campaigns.pop()
    second.daily(*ONLY)
    count = (
        "SELECT i.name, count(*), count(deleted_at) FROM campaign_messages JOIN integrations i USING"
        " (esp_integration_id) GROUP BY 1 ORDER BY 1"
    )
    assert warehouse.rows(count) == [("other", 3, 2), ("shop", 3, 0)]
    assert warehouse.one("SELECT count(*) FROM messages WHERE message_key = md5('M1')") == 2


@pytest.mark.parametrize("mode", ["keep", "hash", "drop"])
def test_only_texts_with_an_address_are_personal(warehouse: Warehouse, shop: FakeAccount, mode: str) -> None:
    """A subject that contains one is hashed; other subjects and the sender, who is the account, stay."""
    texts: dict[str, Any] = {"subject": "About ada@example.com", "body": "Call +49 30 1234567"}
    texts["from_email"] = "news@example.com"
    shop.campaigns.append(campaign("C3")._replace(messages=[CampaignMessage("M3", "C3", "sms", **texts)]))
    warehouse.daily(*ONLY, personal_data=mode, personal_data_salt="salt" * 8)
    query = f"SELECT {', '.join(texts)} FROM campaign_messages WHERE id = %s"
    assert warehouse.rows(query, "M1") == [("About M1", None, None)]
    [stored] = warehouse.rows(query, "M3")
    readable = [text for text in texts.values() if text in stored]
    assert readable == (list(texts.values()) if mode == "keep" else ["news@example.com"])
    assert all(stored)
    [definition, *_] = warehouse.column("SELECT definition::text FROM flow_actions")
    assert (definition is None, "ada@example.com" in (definition or "")) == (mode == "drop", mode == "keep")


def test_a_dialect_without_messages_marks_none(warehouse: Warehouse, shop: FakeAccount) -> None:
    """The messages that the other dialect has read stay."""
    warehouse.daily(*ONLY)
    shop.set_traits(reads_messages=False)
    shop.campaigns[:] = [each._replace(messages=()) for each in shop.campaigns]
    shop.flows[:] = [each._replace(actions=(), messages=()) for each in shop.flows]
    assert not set(TABLES) & set(warehouse.daily(*ONLY).counts)
    assert not any(deleted for table in TABLES for deleted in marked(warehouse, table).values())


def test_each_message_of_events_is_resolved_once(warehouse: Warehouse, shop: FakeAccount) -> None:
    """Events have the id of a campaign, of one of its messages, or of a message of a flow."""
    shop.add_events("OPEN", days_ago(1), days_ago(2), person="P1")
    for message, flow in (("C1", None), ("M1", None), ("M2B", None), ("F1-A", "F1"), ("OLD", "F1"), ("GONE", None)):
        shop.add_events("OPEN", days_ago(3) + timedelta(minutes=1))
        shop.events[-1] = shop.events[-1]._replace(message=message, flow=flow)
    warehouse.daily(*ONLY, "opens")
    resolved = (
        "SELECT m.message_type, m.message_id, m.campaign_id, m.automation_key = md5('F1'), m.is_placeholder"
        " FROM opens o"
        " LEFT JOIN messages m ON m.message_key = o.campaign_key AND m.esp_integration_id = o.esp_integration_id"
        " WHERE o.campaign_key IS NOT NULL ORDER BY 2"
    )
    assert warehouse.rows(resolved) == [
        ("campaign", "C1", "C1", None, False),
        ("flow_message", "F1-A", None, True, False),
        ("campaign", "GONE", "GONE", None, True),
        ("campaign_message", "M1", "C1", None, False),
        ("campaign_message", "M2B", "C2", None, False),
        ("flow_message", "OLD", None, True, False),
    ]


PLACEHOLDERS = "SELECT id, name, deleted_at IS NOT NULL FROM campaigns WHERE is_placeholder ORDER BY id"


def test_the_placeholder_of_a_message_has_the_name_of_its_campaign(warehouse: Warehouse, shop: FakeAccount) -> None:
    """It is deleted if the message is. A second run changes nothing, and a full read does not look for it."""
    for message in ("M2B", "GONE"):
        shop.add_events("OPEN", days_ago(1))
        shop.events[-1] = shop.events[-1]._replace(message=message)
    warehouse.daily(*ONLY, "campaigns", "opens")
    assert warehouse.rows(PLACEHOLDERS) == [("GONE", None, True), ("M2B", "Campaign C2", False)]
    assert warehouse.daily(*ONLY, "campaigns", "opens").changed() == {}
    shop.campaigns[1] = shop.campaigns[1]._replace(name="Renamed")
    warehouse.daily(*ONLY, "campaigns", "opens")
    assert warehouse.rows(PLACEHOLDERS) == [("GONE", None, True), ("M2B", "Renamed", False)]
    del shop.campaigns[1]
    warehouse.daily(*ONLY, "campaigns", "opens")
    assert warehouse.rows(PLACEHOLDERS) == [("GONE", None, True), ("M2B", "Renamed", True)]
    shop.campaigns.append(campaign("C2", "M2A", "M2B"))
    warehouse.daily(*ONLY, "campaigns", "opens")
    assert warehouse.rows(PLACEHOLDERS) == [("GONE", None, True), ("M2B", "Campaign C2", False)]
