"""Identical options give identical accounts, and other options give different ones."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from sandbox.account import Account, Options, generate
from sandbox.current import resources

OPTIONS = Options(members=80, events=800, days=10)
OTHERS = [
    pytest.param(replace(OPTIONS, seed=8), id="seed"),
    pytest.param(replace(OPTIONS, account="OTHER1"), id="account"),
]


def everything(account: Account) -> Iterator[object]:
    """Yield everything that a client could read from the account."""
    for row in account.metrics.values():
        yield resources.metric("", row, None)
    for campaign in account.campaigns.values():
        yield resources.campaign("", campaign, None)
        yield [resources.campaign_message("", message, None) for message in campaign.messages]
    for flow in account.flows.values():
        yield resources.flow("", flow, None), flow.messages
    for group in (*account.lists.values(), *account.segments.values()):
        yield resources.group("", group, None), group.joined
    for index in range(len(account.people)):
        yield resources.profile("", account.people.profile(index), None, ("subscriptions",))
    timeline = account.timeline
    for ref in timeline.every():
        yield timeline.id(ref), timeline.time(ref), timeline.metric(ref), timeline.person(ref), timeline.properties(ref)


def ids(account: Account) -> set[str | None]:
    kinds = ("metrics", "campaigns", "flows", "lists", "segments")
    events = {account.timeline.id(ref) for ref in account.timeline.every()}
    people = {account.people.id(index) for index in range(len(account.people))}
    return events | people | {row_id for kind in kinds for row_id in account.collection(kind)}


def test_same_options_give_the_same_account() -> None:
    assert list(everything(generate(OPTIONS))) == list(everything(generate(OPTIONS)))


@pytest.mark.parametrize("other", OTHERS)
def test_other_options_give_other_ids(other: Options) -> None:
    """Accounts with different options have no id in common."""
    assert not ids(generate(OPTIONS)) & ids(generate(other))


def test_options_set_the_size_and_the_end_of_the_account() -> None:
    until = OPTIONS.until - timedelta(days=100)
    account = generate(replace(OPTIONS, until=until, events=1234, members=77))
    assert len(account.timeline) == 1234
    assert len(account.people) == 77
    past = [time for time in account.timeline.times if time < until.timestamp()]
    assert min(past) >= account.options.start
    assert len(past) > 1200


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(replace(OPTIONS, members=1, events=0, days=2), id="one person, no events"),
        pytest.param(replace(OPTIONS, members=1, events=50, days=2), id="one person"),
        pytest.param(replace(OPTIONS, members=2000, events=30), id="more people than events"),
    ],
)
def test_an_account_can_have_any_size(options: Options) -> None:
    account = generate(options)
    assert (len(account.people), len(account.timeline)) == (options.members, options.events)
