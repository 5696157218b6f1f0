"""Putting together a derived account, and adding days to it while it is served."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from sandbox.account.generate import campaigns_and_flows, integration
from sandbox.account.ids import EventIds, token
from sandbox.account.model import Account, Campaign, Flow, Group, Metric, metric_id
from sandbox.account.orders import Order
from sandbox.account.people import Suppression
from sandbox.account.tags import add_tags
from sandbox.derived.calendar import event_calendar, events_of_a_day
from sandbox.derived.groups import Members, rule
from sandbox.derived.lives import Lives
from sandbox.derived.metrics import DerivedMetric, Pattern, describe_metrics
from sandbox.derived.options import DerivedOptions
from sandbox.derived.owners import Owners
from sandbox.derived.people import DerivedPeople
from sandbox.derived.properties import styles
from sandbox.derived.sources import Sources
from sandbox.derived.suppressions import Rows, Suppressed, SuppressedFromLists
from sandbox.derived.timeline import DerivedTimeline


class DerivedAccount(Account):
    """An account that is not held in memory, apart from events that tests add."""

    options: DerivedOptions
    people: DerivedPeople
    timeline: DerivedTimeline

    def merge(self, old: int, new: int, at: int) -> None:
        """Refuse, before anything of the two people is changed."""
        self.people.refuse()

    def add_days(self, days: int) -> None:
        """Append days to the history, on each of which a share of everything is new or changes.

        Raises ValueError, and changes nothing, if the history cannot have so many.
        """
        if days < 0:
            raise ValueError("Only days can be added that are still to come")
        options = replace(self.options, added_days=self.options.added_days + days)
        lives = Lives(options)
        self.timeline.calendar = self.timeline.calendar.extended(events_of_a_day(options) * days)
        self.people.renew(lives)
        for group in (*self.lists.values(), *self.segments.values()):
            _members(group).renew(lives)
        self.options = options
        self.generation += 1


class DerivedOrders:
    """The orders of the people of a derived account."""

    def __init__(self, account: DerivedAccount) -> None:
        self._account = account

    @property
    def by_created(self) -> Order:
        lives = self._account.people.lives
        return ByPosition(len(lives), lives.created.time, lambda position: position)  # they are numbered so

    @property
    def by_updated(self) -> Order:
        lives = self._account.people.lives
        return ByPosition(len(lives.updated), lives.updated.time, lives.person)

    def suppressed(self, reason: str | None, list_id: str | None = None, of_list: bool = False) -> Order:
        lives = self._account.people.lives
        if not of_list:
            return Suppressed(lives, reason, once=reason is None)
        if reason in (None, "UNSUBSCRIBE"):
            return SuppressedFromLists(lives, self._account.people.lists, list_id)
        return SuppressedFromLists(lives, [], "")

    def members(self, group_id: str) -> Order:
        groups = self._account.lists | self._account.segments
        members = _members(groups[group_id])
        return ByPosition(members.positions, members.time, members.person)

    def members_from(self, group_id: str, index: int) -> Iterator[int]:
        groups = self._account.lists | self._account.segments
        return _members(groups[group_id]).following(index)

    def suppressions(self, reason: str | None, descending: bool) -> Sequence[tuple[int, Suppression]]:
        return Rows(self._account.people.lives, reason, descending)


class ByPosition:
    """An order of so many positions, each with a time and a person."""

    def __init__(self, positions: int, time: Callable[[int], int], person: Callable[[int], int | None]) -> None:
        self._positions, self._time, self._person = positions, time, person

    def __len__(self) -> int:
        return self._positions

    def time(self, position: int) -> int:
        return self._time(position)

    def person(self, position: int) -> int | None:
        return self._person(position)


def _members(group: Group) -> Members:
    assert isinstance(group.joined, Members)
    return group.joined


def derive(options: DerivedOptions) -> DerivedAccount:
    """Return the account that these options describe."""
    lives, metrics = Lives(options), describe_metrics(options.metrics)
    segments = _groups(options, lives, is_segment=True)
    lists = _groups(options, lives, is_segment=False)
    campaigns, flows = campaigns_and_flows(options, list(lists), list(segments))
    timeline = _timeline(options, metrics, list(lists.values()), list(campaigns.values()), list(flows.values()))
    people = DerivedPeople(options, lives, timeline.last_event, list(lists))
    account = DerivedAccount(options, people, _metrics(options, metrics), campaigns, flows, lists, segments, timeline)
    account.orders = DerivedOrders(account)
    add_tags(account)
    return account


def _timeline(
    options: DerivedOptions,
    metrics: Sequence[DerivedMetric],
    lists: list[Group],
    campaigns: list[Campaign],
    flows: list[Flow],
) -> DerivedTimeline:
    calendar = event_calendar(options).extended(events_of_a_day(options) * options.added_days)
    sources = Sources([metric.style for metric in metrics], lists, campaigns, flows)
    ids = EventIds(options.account, options.seed)
    return DerivedTimeline(ids, calendar, Pattern(metrics, options), Owners(options), sources, styles(metrics, options))


def _metrics(options: DerivedOptions, metrics: Sequence[DerivedMetric]) -> dict[str, Metric]:
    first = options.until - timedelta(days=options.days + 400)
    made = {}
    for at, metric in enumerate(metrics):
        row_id, created = metric_id(options, metric.name), first + timedelta(minutes=97 * at)
        updated = created + timedelta(days=at % 300)
        made[row_id] = Metric(at, row_id, metric.name, created, updated, integration(metric.integration))
    return made


def _groups(options: DerivedOptions, lives: Lives, is_segment: bool) -> dict[str, Group]:
    """Return the lists, two thirds of the groups, or the segments."""
    segments = options.lists // 3 or 1
    numbers = range(options.lists - segments, options.lists) if is_segment else range(options.lists - segments)
    groups = {}
    for at in numbers:
        created = options.until - timedelta(days=options.days, hours=at + 1)
        row_id = token("segment" if is_segment else "list", options.account, options.seed, at)
        groups[row_id] = Group(
            id=row_id,
            name=f"Segment {at + 1 - numbers[0]}" if is_segment else f"List {at + 1}",
            created=created,
            updated=created + timedelta(hours=at),
            is_segment=is_segment,
            opt_in_process=("single_opt_in", "double_opt_in")[at % 2],
            joined=Members(lives, rule(at - numbers[0], options.base_end - options.days * 86_400 // 3)),
        )
    return groups
