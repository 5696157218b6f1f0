"""The account is as varied as a real one: it contains everything that breaks a careless loader."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.account import Account
from sandbox.account.people import NEVER_SUBSCRIBED
from sandbox.account.timeline import NOBODY, Window


def properties(account: Account, metric: str) -> list[dict[str, Any]]:
    """Return the properties of all events of a metric."""
    window = Window(account.metric(metric).number)
    refs = account.timeline.read(window, account.timeline.count(window))
    return [json.loads(account.timeline.properties(ref)) for ref in refs]


def values(value: Any) -> Iterator[Any]:
    """Yield a value and all names and values within it."""
    yield value
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from values(inner)


@pytest.fixture(scope="module")
def all_values(account: Account) -> list[Any]:
    """Every value in any property of an event or a person."""
    events = (json.loads(account.timeline.properties(ref)) for ref in account.timeline.every())
    people = (account.people.profile(index).properties for index in range(len(account.people)))
    return [inner for properties in (*events, *people) for inner in values(properties)]


def test_every_metric_has_events(account: Account) -> None:
    """Each metric has events, and "Received Email" has the most."""
    counts = Counter(account.timeline.metric(ref) for ref in account.timeline.every())
    assert all(counts[metric.number] for metric in account.metrics.values())
    assert counts.most_common(1)[0][0] == account.metric("Received Email").number


def test_emails_come_from_campaigns_and_flows(account: Account) -> None:
    """Emails of a flow contain the id of the flow, and emails of a campaign contain no flow."""
    sends = properties(account, "Received Email")
    flows = [send for send in sends if "$flow" in send]
    assert 0.2 < len(flows) / len(sends) < 0.4
    messages = {message.id: flow.id for flow in account.flows.values() for message in flow.messages}
    existing = [send for send in flows if send["$flow"] in account.flows]
    assert existing and all(messages[send["$message"]] == send["$flow"] for send in existing)
    assert {send["$message"] for send in sends if "$flow" not in send} & set(account.campaigns)


def test_text_messages_come_from_sms_campaigns(account: Account) -> None:
    channels = {
        account.campaigns[text["$message"]].channel
        for text in properties(account, "Received Text Message")
        if text["$message"] in account.campaigns
    }
    assert channels == {"sms"}


def test_ab_campaigns_have_two_variations(account: Account) -> None:
    """A/B campaigns have two messages, and each of their emails contains its variation and its message."""
    split = [row for row in account.campaigns.values() if row.send_strategy == "ab_test_campaign"]
    assert all(len(campaign.messages) == 2 for campaign in split)
    sends = [send for send in properties(account, "Received Email") if "$variation" in send]
    found = variations(sends)
    assert not set(account.campaigns) & set(found)
    of_campaigns = [[found.get(message.id, set()) for message in campaign.messages] for campaign in split]
    assert all(len(kinds) == 1 for kinds in found.values())
    assert max(len(set().union(*kinds)) for kinds in of_campaigns) == 2


def variations(sends: list[dict[str, Any]]) -> dict[str, set[str]]:
    by_message: dict[str, set[str]] = {}
    for send in sends:
        by_message.setdefault(send["$message"], set()).add(send["$variation"])
    return by_message


def test_some_events_refer_to_deleted_campaigns_and_flows(account: Account) -> None:
    sends = properties(account, "Received Email")
    flow_messages = {send["$message"] for send in sends if "$flow" in send}
    assert {send["$message"] for send in sends} - flow_messages - set(account.campaigns)
    assert {send["$flow"] for send in sends if "$flow" in send} - set(account.flows)


def test_campaigns_have_all_channels_and_several_statuses(account: Account) -> None:
    """Each channel has archived and unarchived campaigns."""
    rows = account.campaigns.values()
    assert {(row.channel, row.archived) for row in rows} == {
        (channel, archived) for channel in ("email", "sms", "mobile_push") for archived in (True, False)
    }
    assert {"Sent", "Draft", "Scheduled", "Cancelled"} <= {row.status for row in rows}
    assert {row.status for row in rows if row.send_time} == {"Sent", "Sending", "Scheduled"}
    assert any(row.included and row.included[0] in account.segments for row in rows)
    assert any(row.excluded for row in rows)


def test_flows_have_all_statuses(account: Account) -> None:
    """There are live, manual and draft flows, and archived and unarchived ones."""
    assert {flow.status for flow in account.flows.values()} == {"live", "manual", "draft"}
    assert {flow.archived for flow in account.flows.values()} == {True, False}


def test_revenue_has_values_of_every_kind(account: Account) -> None:
    """Values can be whole, negative, zero, huge, text, or text that is not a number."""
    orders = [order["$value"] for order in properties(account, "Placed Order")]
    points = {point["$value"] for point in properties(account, "Loyalty Points Earned")}
    assert sum(orders) > 0 and min(orders) < 0 and 0 in orders
    assert any(isinstance(value, int) and value > 2**53 for value in orders)
    assert {"12.50", "not a number"} <= points
    assert {order["$value_currency"] for order in properties(account, "Placed Order")} == {"USD", "EUR", "DKK"}


def test_metrics_come_from_several_integrations(account: Account) -> None:
    """One integration has no category, and one metric has no integration."""
    sources = [metric.integration for metric in account.metrics.values()]
    assert {"Klaviyo", "API", "Shopify"} <= {source.name for source in sources if source}
    assert None in sources
    assert None in {source.category for source in sources if source}


def test_suppressions_have_all_five_reasons(account: Account) -> None:
    """People are suppressed from one list or from all, once or several times. Some of them never subscribed."""
    suppressions = [row for rows in account.people.suppressions.values() for row in rows]
    assert {row.reason for row in suppressions if row.list_id is None} == {
        "HARD_BOUNCE",
        "INVALID_EMAIL",
        "SPAM_COMPLAINT",
        "UNSUBSCRIBE",
        "USER_SUPPRESSED",
    }
    assert {row.list_id for row in suppressions} - {None} <= set(account.lists)
    profiles = [account.people.profile(index) for index in account.people.suppressions]
    assert any(sum(row.list_id is None for row in profile.suppressions) > 1 for profile in profiles)
    assert any(profile.consent == NEVER_SUBSCRIBED for profile in profiles)


def test_people_have_and_lack_each_attribute(account: Account) -> None:
    """Each state of consent occurs, and some people have an optional attribute while others do not."""
    profiles = [account.people.profile(index) for index in range(len(account.people))]
    assert {profile.consent for profile in profiles} == {"NEVER_SUBSCRIBED", "SUBSCRIBED", "UNSUBSCRIBED"}
    for name in ("email", "phone_number", "external_id", "first_name", "last_name", "last_event_date"):
        assert {getattr(profile, name) is None for profile in profiles} == {True, False}, name
    assert {profile.location["latitude"] is None for profile in profiles} == {True, False}
    assert {bool(profile.properties) for profile in profiles} == {True, False}
    addresses = [profile.email for profile in profiles if profile.email]
    assert any("+" in address for address in addresses)
    assert any(address != address.lower() for address in addresses)
    assert len(set(addresses)) == len(addresses)


def test_some_people_have_no_events(account: Account) -> None:
    """Some people have no events and are members of segments nevertheless."""
    active = {account.timeline.person(ref) for ref in account.timeline.every()}
    idle = set(range(len(account.people))) - active
    assert idle
    assert any(idle & set(group.joined) for group in account.segments.values())
    assert all(account.people.profile(index).last_event_date is None for index in idle)


def test_some_events_have_no_person(account: Account) -> None:
    persons = [account.timeline.person(ref) for ref in account.timeline.every()]
    assert 0 < persons.count(NOBODY) < len(persons) // 50


def test_a_few_events_are_in_the_future(account: Account) -> None:
    """A few events are later than the end date of the account."""
    future = account.timeline.count(Window(since=account.options.end))
    assert 0 < future < 20


def test_several_events_share_a_second(account: Account) -> None:
    assert Counter(account.timeline.times).most_common(1)[0][1] > 3


def test_lists_and_segments_include_duplicate_names_and_empty_ones(account: Account) -> None:
    """Two lists have the same name, and at least one list and one segment are empty."""
    assert len(account.lists) > 10 and len(account.segments) > 10
    names = Counter(group.name for group in account.lists.values())
    assert max(names.values()) == 2
    for groups in (account.lists, account.segments):
        assert {bool(group.joined) for group in groups.values()} == {True, False}
    assert {group.opt_in_process for group in account.lists.values()} == {"single_opt_in", "double_opt_in"}


@pytest.mark.parametrize(
    "piece",
    ['"', "'", "\n", "\t", "\x00", "🎁", "漢字", "\\", "\\N", ";", "<b>", "DROP TABLE", "x" * 5000],
    ids=lambda piece: ascii(piece)[:20],
)
def test_texts_contain_odd_characters(all_values: list[Any], piece: str) -> None:
    """Texts contain characters that need quoting, escaping or special storage."""
    assert any(isinstance(value, str) and piece in value for value in all_values)


@pytest.mark.parametrize(
    "name",
    [
        'Favourite "Colour"',
        "it's",
        "line\nbreak",
        "nul\x00name",
        "🎈",
        "$dollar",
        "dotted.name.here",
        "",
        "Size",
        "size",
    ],
    ids=ascii,
)
def test_properties_have_odd_names(account: Account, name: str) -> None:
    """Properties of events and of people can have any name."""
    assert any(name in account.people.profile(index).properties for index in range(len(account.people)))
    odd_metrics = ('Quote "Requested"', "🎉 Party Joined")
    assert any(name in event for metric in odd_metrics for event in properties(account, metric))


@pytest.mark.parametrize(
    "value", [2**53 + 1, 123_456_789_012_345_678_901_234_567_890, 1e300, True, False, None, "", [], {}], ids=repr
)
def test_properties_have_odd_values(all_values: list[Any], value: object) -> None:
    """Values have all types and exceed the range of floats and 64-bit integers."""
    assert any(type(each) is type(value) and each == value for each in all_values)


def test_values_are_nested(all_values: list[Any]) -> None:
    """Some values are objects that contain objects."""
    assert any(
        isinstance(value, dict) and any(isinstance(inner, dict) and "deep" in inner for inner in value.values())
        for value in all_values
    )
