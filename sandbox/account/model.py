"""One Klaviyo account as plain values: what exists in it, and the changes that tests can make.

Must not know how either API dialect presents the account.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, tzinfo
from typing import Any

from sandbox.account.attributions import Attributions
from sandbox.account.definitions import define
from sandbox.account.designs import design
from sandbox.account.ids import token
from sandbox.account.orders import Orders
from sandbox.account.people import People
from sandbox.account.shop import open_shop
from sandbox.account.timeline import Timeline, Window


@dataclass(frozen=True, slots=True)
class Options:
    """The input of `generate`. The same options give the same account."""

    account: str = "SANDBX"
    seed: int = 7
    members: int = 2000
    events: int = 40_000
    days: int = 60
    until: datetime = datetime(2026, 11, 24, tzinfo=UTC)

    @property
    def end(self) -> int:
        return int(self.until.timestamp())

    @property
    def start(self) -> int:
        return self.end - self.days * 86_400


@dataclass(frozen=True, slots=True)
class Integration:
    """The source of a metric."""

    id: str
    key: str
    name: str
    category: str | None


API = Integration("7FtS4J", "api", "API", "API")


def metric_id(options: Options, name: str) -> str:
    """Return the id of the metric that had this name when it was created."""
    return token("metric", options.account, options.seed, name)


@dataclass(slots=True)
class Metric:
    """A type of event. `number` identifies it in the timeline."""

    number: int
    id: str
    name: str
    created: datetime
    updated: datetime
    integration: Integration | None


@dataclass(slots=True)
class CampaignMessage:
    """A message of a campaign. Its content depends on the channel."""

    id: str
    campaign_id: str
    channel: str
    label: str
    content: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    send_times: list[datetime]


@dataclass(slots=True)
class Campaign:
    """A campaign. Its audiences are ids of lists and segments."""

    id: str
    name: str
    status: str
    archived: bool
    channel: str
    included: list[str]
    excluded: list[str]
    send_strategy: str
    created_at: datetime
    updated_at: datetime
    scheduled_at: datetime | None
    send_time: datetime | None
    messages: list[CampaignMessage] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


@dataclass(slots=True)
class FlowMessage:
    """An email or text message within a flow."""

    id: str
    name: str
    subject: str


@dataclass(slots=True)
class Flow:
    """An automation."""

    id: str
    name: str
    status: str
    archived: bool
    trigger_type: str
    created: datetime
    updated: datetime
    messages: list[FlowMessage] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Group:
    """A list or a segment. `joined` maps each member's index to the second of joining."""

    id: str
    name: str
    created: datetime
    updated: datetime
    is_segment: bool = False
    opt_in_process: str = "single_opt_in"
    is_active: bool = True
    is_starred: bool = False
    is_processing: bool = False
    joined: MutableMapping[int, int] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)


@dataclass(slots=True)
class TagGroup:
    """A group of tags."""

    id: str
    name: str
    is_exclusive: bool
    is_default: bool


@dataclass(slots=True)
class Tag:
    """A tag. Campaigns, flows, lists and segments have the ids of theirs."""

    id: str
    name: str
    group_id: str


def audience_size(groups: Sequence[Group]) -> int:
    """Return the number of people on any of the lists and segments, or at most so many if they are not in memory."""
    members = [group.joined for group in groups]
    if all(isinstance(each, dict) for each in members):
        return len(set().union(*members))
    return sum(map(len, members))


@dataclass
class Account:
    """Everything in the account. `generation` grows with every change and invalidates cached views.

    An account with `orders` is too large to list its people in memory.
    """

    options: Options
    people: People
    metrics: dict[str, Metric]
    campaigns: dict[str, Campaign]
    flows: dict[str, Flow]
    lists: dict[str, Group]
    segments: dict[str, Group]
    timeline: Timeline
    generation: int = 0
    orders: Orders | None = None
    tags: dict[str, Tag] = field(default_factory=dict)
    tag_groups: dict[str, TagGroup] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metric_ids = [metric.id for metric in self.metrics.values()]  # by number, including deleted metrics
        self._count_errors: dict[int, dict[date, int]] = defaultdict(lambda: defaultdict(int))  # by metric number
        self._deleted: dict[tuple[str, str], tuple[int, Any]] = {}
        numbers = {metric.name: metric.number for metric in self.metrics.values()}
        self.attributions = Attributions(self.options.account, self.timeline, numbers)
        ids = {metric.name: metric.id for metric in self.metrics.values()}
        self.designs = design(self.options.account, self.options.seed, self.options.until)
        self.shop = open_shop(self.options.account, self.options.seed, self.options.until, self.people)
        self.definitions = define(self.options.account, self.options.seed, ids, self.options.until)

    def collection(self, kind: str) -> dict[str, Any]:
        """Return the rows of a kind by id: metrics, custom-metrics, campaigns and so on. Raise KeyError for others."""
        kinds: dict[str, dict[str, Any]] = {
            "metrics": self.metrics,
            "custom-metrics": self.definitions.custom_metrics,
            "mapped-metrics": self.definitions.mapped_metrics,
            "campaigns": self.campaigns,
            "flows": self.flows,
            "lists": self.lists,
            "segments": self.segments,
            "tags": self.tags,
            "templates": self.designs.templates,
            "forms": self.designs.forms,
            "images": self.designs.images,
            **self.shop.collections(),
        }
        return kinds[kind]

    def change(self, kind: str, row_id: str, attributes: dict[str, Any]) -> None:
        """Set attributes of a row. Raise KeyError for an unknown row, TypeError for an unknown attribute."""
        rows = self.collection(kind)
        rows[row_id] = replace(rows[row_id], **attributes)
        self.generation += 1

    def delete(self, kind: str, row_id: str) -> None:
        """Delete a row. Its events stay, as they do in Klaviyo."""
        rows = self.collection(kind)
        self._deleted[kind, row_id] = list(rows).index(row_id), rows.pop(row_id)
        self.generation += 1

    def restore(self, kind: str, row_id: str) -> None:
        """Restore a deleted row in its old position. Raise KeyError if it was not deleted."""
        position, row = self._deleted.pop((kind, row_id))
        rows = self.collection(kind)
        order = [*rows.items()]
        order.insert(position, (row_id, row))
        rows.clear()
        rows.update(order)
        self.generation += 1

    def erase(self, index: int) -> None:
        """Remove a person from everything except their events, which keep the profile id."""
        self.people.erase(index)
        for group in (*self.lists.values(), *self.segments.values()):
            group.joined.pop(index, None)
        self.generation += 1

    def merge(self, old: int, new: int, at: int) -> None:
        """Merge a person into another one, who gets the events and the places on lists and in segments."""
        for group in (*self.lists.values(), *self.segments.values()):
            if old in group.joined:
                group.joined.setdefault(new, group.joined[old])
        self.timeline.merge(old, new)
        self.people.record_event(new, self.people.last_event[old])
        self.people.updated[new] = at
        self.erase(old)

    def metric_number(self, name_or_id: str) -> int:
        """Return the number of a current or deleted metric. Raise KeyError for an unknown one."""
        for metric in self.metrics.values():
            if name_or_id == metric.name:
                return metric.number
        if name_or_id in self.metric_ids:
            return self.metric_ids.index(name_or_id)
        raise KeyError(name_or_id)

    def busiest_other_metric(self, metric_id: str) -> str | None:
        """Return the id of the metric with the most events apart from this one."""
        others = [row for row in self.metrics.values() if row.id != metric_id]
        return max(others, key=lambda row: self.timeline.count(Window(row.number))).id if others else None

    def falsify_count(self, metric: int, day: date, add: int) -> None:
        """Add to the reported count of a metric on a day. 0 restores the true count."""
        self._count_errors[metric][day] = self._count_errors[metric][day] + add if add else 0

    def count_errors(self, window: Window, starts: Sequence[int], zone: tzinfo) -> Iterator[tuple[int, int]]:
        """Yield the interval and amount of each false count. A day's error belongs to its first second.

        `starts` are the seconds at which the intervals of the window start.
        """
        if window.metric not in self._count_errors:
            return
        for day, add in self._count_errors[window.metric].items():
            at = datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()
            if add and window.since <= at < window.until:
                yield bisect_right(starts, at) - 1, add

    def metric(self, name_or_id: str) -> Metric:
        """Return the metric with this id or name. A new name creates a metric, as tracking an event does."""
        for metric in self.metrics.values():
            if name_or_id in (metric.id, metric.name):
                return metric
        return self._new_metric(name_or_id)

    def _new_metric(self, name: str) -> Metric:
        now = self.options.until
        row_id = metric_id(self.options, name)
        while row_id in self.metric_ids:  # taken by a metric that has since been renamed or deleted
            row_id = metric_id(self.options, row_id)
        metric = Metric(self.timeline.new_metric(), row_id, name, now, now, API)
        self.metrics[metric.id] = metric
        self.metric_ids.append(metric.id)
        self.generation += 1
        return metric
