"""The same options give the same account, down to the last property; other options give another."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from sandbox import current
from sandbox.account import Account, Options
from sandbox.generate import generate

OPTIONS = Options(members=80, events=800, days=10)
OTHERS = [
    pytest.param(replace(OPTIONS, seed=8), id="seed"),
    pytest.param(replace(OPTIONS, account="OTHER1"), id="account"),
]


def everything(account: Account) -> Iterator[object]:
    """All that a reader could see of the account."""
    for row in account.metrics.values():
        yield current.metric("", row, None)
    for campaign in account.campaigns.values():
        yield current.campaign("", campaign, None)
        yield [current.campaign_message("", message, None) for message in campaign.messages]
    for flow in account.flows.values():
        yield current.flow("", flow, None), flow.messages
    for group in (*account.lists.values(), *account.segments.values()):
        yield current.group("", group, None), group.joined
    for index in range(len(account.people)):
        yield current.profile("", account.people.profile(index), None, ("subscriptions",))
    timeline = account.timeline
    for ref in timeline.every():
        yield timeline.id(ref), timeline.time(ref), timeline.metric(ref), timeline.person(ref), timeline.properties(ref)


def ids(account: Account) -> set[str | None]:
    kinds = ("metrics", "campaigns", "flows", "lists", "segments")
    events = {account.timeline.id(ref) for ref in account.timeline.every()}
    people = {account.people.id(index) for index in range(len(account.people))}
    return events | people | {row_id for kind in kinds for row_id in account.collection(kind)}


def test_same_options_same_account() -> None:
    """Two accounts of the same options are equal in everything."""
    assert list(everything(generate(OPTIONS))) == list(everything(generate(OPTIONS)))


@pytest.mark.parametrize("other", OTHERS)
def test_other_options_other_ids(other: Options) -> None:
    """Two accounts share no id at all."""
    assert not ids(generate(OPTIONS)) & ids(generate(other))


def test_size_and_time_follow_the_options() -> None:
    """The account is as large as asked for, and ends when asked to."""
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
        pytest.param(replace(OPTIONS, members=1, events=0, days=2), id="one person, nothing happened"),
        pytest.param(replace(OPTIONS, members=1, events=50, days=2), id="one person"),
        pytest.param(replace(OPTIONS, members=2000, events=30), id="more people than events"),
    ],
)
def test_odd_sizes(options: Options) -> None:
    """An account of any size can be made."""
    account = generate(options)
    assert (len(account.people), len(account.timeline)) == (options.members, options.events)
