"""The account is as varied as a real one: it holds everything that a careless loader trips over."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.account import Account
from sandbox.people import NEVER_SUBSCRIBED
from sandbox.timeline import NOBODY, Window


def properties(account: Account, metric: str) -> list[dict[str, Any]]:
    """The properties of all events of a metric."""
    window = Window(account.metric(metric).number)
    refs = account.timeline.read(window, account.timeline.count(window))
    return [json.loads(account.timeline.properties(ref)) for ref in refs]


def values(value: Any) -> Iterator[Any]:
    """A value and all that is within it, the names too."""
    yield value
    if isinstance(value, dict):
        yield from value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from values(inner)


@pytest.fixture(scope="module")
def said(account: Account) -> list[Any]:
    """Every value in any property of an event or a person."""
    found = [
        inner for ref in account.timeline.every() for inner in values(json.loads(account.timeline.properties(ref)))
    ]
    people = (account.people.profile(index).properties for index in range(len(account.people)))
    return found + [inner for person in people for inner in values(person)]


def test_every_metric_has_events(account: Account) -> None:
    """No metric is empty, and sends outnumber the rest."""
    counts = Counter(account.timeline.metric(ref) for ref in account.timeline.every())
    assert all(counts[metric.number] for metric in account.metrics.values())
    assert counts.most_common(1)[0][0] == account.metric("Received Email").number


def test_mails_come_from_campaigns_and_flows(account: Account) -> None:
    """Both kinds of sends are there: a flow's name their flow, a campaign's do not."""
    sends = properties(account, "Received Email")
    flows = [send for send in sends if "$flow" in send]
    assert 0.2 < len(flows) / len(sends) < 0.4
    messages = {message.id: flow.id for flow in account.flows.values() for message in flow.messages}
    known = [send for send in flows if send["$flow"] in account.flows]
    assert known and all(messages[send["$message"]] == send["$flow"] for send in known)
    assert {send["$message"] for send in sends if "$flow" not in send} & set(account.campaigns)


def test_texts(account: Account) -> None:
    """Text messages are sent by campaigns of that channel."""
    channels = {
        account.campaigns[text["$message"]].channel
        for text in properties(account, "Received Text Message")
        if text["$message"] in account.campaigns
    }
    assert channels == {"sms"}


def test_split_campaigns(account: Account) -> None:
    """A/B campaigns have two messages, and their sends tell which of the two it was."""
    split = {row.id for row in account.campaigns.values() if row.send_strategy == "ab_test_campaign"}
    assert all(len(account.campaigns[row_id].messages) == 2 for row_id in split)
    sends = [send for send in properties(account, "Received Email") if "$variation" in send]
    assert {send["$message"] for send in sends} & set(account.campaigns) <= split
    assert max(Counter(len(kinds) for kinds in variations(sends).values())) == 2


def variations(sends: list[dict[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for send in sends:
        found.setdefault(send["$message"], set()).add(send["$variation"])
    return found


def test_events_outlive_what_sent_them(account: Account) -> None:
    """Some events name campaigns and flows that are gone."""
    sends = properties(account, "Received Email")
    flow_messages = {send["$message"] for send in sends if "$flow" in send}
    assert {send["$message"] for send in sends} - flow_messages - set(account.campaigns)
    assert {send["$flow"] for send in sends if "$flow" in send} - set(account.flows)


def test_campaigns_of_all_kinds(account: Account) -> None:
    """Campaigns of all channels and of several statuses, archived ones among each channel."""
    rows = account.campaigns.values()
    assert {(row.channel, row.archived) for row in rows} == {
        (channel, archived) for channel in ("email", "sms", "mobile_push") for archived in (True, False)
    }
    assert {"Sent", "Draft", "Scheduled", "Cancelled"} <= {row.status for row in rows}
    assert any(row.included and row.included[0] in account.segments for row in rows)
    assert any(row.excluded for row in rows)


def test_flows_of_all_kinds(account: Account) -> None:
    """Flows that run, drafts, and archived ones."""
    assert {flow.status for flow in account.flows.values()} == {"live", "manual", "draft"}
    assert {flow.archived for flow in account.flows.values()} == {True, False}


def test_revenue(account: Account) -> None:
    """Orders and home-made metrics carry values: whole, negative, zero, huge, as text, and as no number at all."""
    orders = [order["$value"] for order in properties(account, "Placed Order")]
    points = {point["$value"] for point in properties(account, "Loyalty Points Earned")}
    assert sum(orders) > 0 and min(orders) < 0 and 0 in orders
    assert any(isinstance(value, int) and value > 2**53 for value in orders)
    assert {"12.50", "not a number"} <= points
    assert {order["$value_currency"] for order in properties(account, "Placed Order")} == {"USD", "EUR", "DKK"}


def test_integrations(account: Account) -> None:
    """Metrics come from several integrations, from one without a category, and from none."""
    sources = [metric.integration for metric in account.metrics.values()]
    assert {"Klaviyo", "API", "Shopify"} <= {source.name for source in sources if source}
    assert None in sources
    assert None in {source.category for source in sources if source}


def test_suppressions(account: Account) -> None:
    """People are suppressed for all five reasons, of all lists or of one, once or more; some never subscribed."""
    everyone = [found for suppressions in account.people.suppressions.values() for found in suppressions]
    assert {found.reason for found in everyone if found.list_id is None} == {
        "HARD_BOUNCE",
        "INVALID_EMAIL",
        "SPAM_COMPLAINT",
        "UNSUBSCRIBE",
        "USER_SUPPRESSED",
    }
    assert {found.list_id for found in everyone} - {None} <= set(account.lists)
    profiles = [account.people.profile(index) for index in account.people.suppressions]
    assert any(sum(found.list_id is None for found in profile.suppressions) > 1 for profile in profiles)
    assert any(profile.consent == NEVER_SUBSCRIBED for profile in profiles)


def test_people_of_all_kinds(account: Account) -> None:
    """Never-subscribed people, people without e-mail address, names, place or properties, and each of them with."""
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


def test_people_without_events(account: Account) -> None:
    """Some people have never done anything, yet belong to segments."""
    active = {account.timeline.person(ref) for ref in account.timeline.every()}
    idle = set(range(len(account.people))) - active
    assert idle
    assert any(idle & set(group.joined) for group in account.segments.values())
    assert all(account.people.profile(index).last_event_date is None for index in idle)


def test_events_without_a_person(account: Account) -> None:
    """Some events belong to nobody."""
    persons = [account.timeline.person(ref) for ref in account.timeline.every()]
    assert 0 < persons.count(NOBODY) < len(persons) // 50


def test_events_in_the_future(account: Account) -> None:
    """A few events are dated after the end of the account's time."""
    future = account.timeline.count(Window(since=account.options.end))
    assert 0 < future < 20


def test_many_events_share_a_second(account: Account) -> None:
    """Campaigns come in bursts: one second holds several events."""
    assert Counter(account.timeline.times).most_common(1)[0][1] > 3


def test_lists_and_segments(account: Account) -> None:
    """Several lists and segments, two lists with one name, and empty ones."""
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
def test_odd_texts(said: list[Any], piece: str) -> None:
    """Texts hold what quoting, copying and storing gets wrong."""
    assert any(isinstance(value, str) and piece in value for value in said)


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
def test_odd_names(account: Account, name: str) -> None:
    """Properties are called anything, of events as of people."""
    assert any(name in account.people.profile(index).properties for index in range(len(account.people)))
    odd = [found for metric in ('Quote "Requested"', "🎉 Party Joined") for found in properties(account, metric)]
    assert any(name in found for found in odd)


@pytest.mark.parametrize(
    "value", [2**53 + 1, 123_456_789_012_345_678_901_234_567_890, 1e300, True, False, None, "", [], {}], ids=repr
)
def test_odd_values(said: list[Any], value: object) -> None:
    """Values are of all types, beyond what floats and 64 bits hold."""
    assert any(type(found) is type(value) and found == value for found in said)


def test_nested_values(said: list[Any]) -> None:
    """Values hold objects in lists in objects."""
    assert any(
        isinstance(value, dict) and any(isinstance(inner, dict) and "deep" in inner for inner in value.values())
        for value in said
    )
