"""One Klaviyo account as plain values, in no API's dialect: what exists, and the few changes that tests make to it."""

from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from typing import Any

from sandbox.ids import token
from sandbox.people import People
from sandbox.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Options:
    """What an account is generated from; the same options give the same account."""

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
    """The id of the metric that first had this name."""
    return token("metric", options.account, options.seed, name)


@dataclass(slots=True)
class Metric:
    """One kind of event; `number` is its place in the timeline."""

    number: int
    id: str
    name: str
    created: datetime
    updated: datetime
    integration: Integration | None


@dataclass(slots=True)
class CampaignMessage:
    """What one campaign sends: its content depends on the channel."""

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
    """One campaign; audiences are ids of lists and segments."""

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


@dataclass(slots=True)
class FlowMessage:
    """One mail or text within a flow."""

    id: str
    name: str
    subject: str


@dataclass(slots=True)
class Flow:
    """One automation."""

    id: str
    name: str
    status: str
    archived: bool
    trigger_type: str
    created: datetime
    updated: datetime
    messages: list[FlowMessage] = field(default_factory=list)


@dataclass(slots=True)
class Group:
    """A list or a segment; `joined` tells since when each person (by index) belongs to it."""

    id: str
    name: str
    created: datetime
    updated: datetime
    is_segment: bool = False
    opt_in_process: str = "single_opt_in"
    is_active: bool = True
    is_starred: bool = False
    joined: dict[int, int] = field(default_factory=dict)


@dataclass
class Account:
    """Everything in the account. `generation` grows with every change, so that readers know what is stale."""

    options: Options
    people: People
    metrics: dict[str, Metric]
    campaigns: dict[str, Campaign]
    flows: dict[str, Flow]
    lists: dict[str, Group]
    segments: dict[str, Group]
    timeline: Timeline
    generation: int = 0

    def __post_init__(self) -> None:
        self.metric_ids = [metric.id for metric in self.metrics.values()]  # by number; deleted ones stay
        self.lies: dict[int, dict[date, int]] = defaultdict(lambda: defaultdict(int))  # by number of the metric
        self._deleted: dict[tuple[str, str], tuple[int, Any]] = {}

    def collection(self, kind: str) -> dict[str, Any]:
        """The rows of a kind (metrics, campaigns, flows, lists, segments) by id; KeyError for another word."""
        kinds: dict[str, dict[str, Any]] = {
            "metrics": self.metrics,
            "campaigns": self.campaigns,
            "flows": self.flows,
            "lists": self.lists,
            "segments": self.segments,
        }
        return kinds[kind]

    def change(self, kind: str, row_id: str, attributes: dict[str, Any]) -> None:
        """Set attributes of one row; KeyError for an unknown row, TypeError for an unknown attribute."""
        rows = self.collection(kind)
        rows[row_id] = replace(rows[row_id], **attributes)
        self.generation += 1

    def delete(self, kind: str, row_id: str) -> None:
        """Take one row away; its events stay, as they do in Klaviyo."""
        rows = self.collection(kind)
        self._deleted[kind, row_id] = list(rows).index(row_id), rows.pop(row_id)
        self.generation += 1

    def restore(self, kind: str, row_id: str) -> None:
        """Put a deleted row back, as it was and where it was; KeyError for one that was not deleted."""
        place, row = self._deleted.pop((kind, row_id))
        rows = self.collection(kind)
        order = [*rows.items()]
        order.insert(place, (row_id, row))
        rows.clear()
        rows.update(order)
        self.generation += 1

    def erase(self, index: int) -> None:
        """Take a person out of everything but their events, which keep the id."""
        self.people.erase(index)
        for group in (*self.lists.values(), *self.segments.values()):
            group.joined.pop(index, None)
        self.generation += 1

    def number_of(self, name_or_id: str) -> int:
        """The number of a metric that there is or was; KeyError for another."""
        for metric in self.metrics.values():
            if name_or_id == metric.name:
                return metric.number
        if name_or_id in self.metric_ids:
            return self.metric_ids.index(name_or_id)
        raise KeyError(name_or_id)

    def lie(self, metric: int, day: date, add: int) -> None:
        """Whoever asks for counts of this metric is told of so many more events on this day; 0 takes it back."""
        self.lies[metric][day] = self.lies[metric][day] + add if add else 0

    def metric(self, name_or_id: str) -> Metric:
        """The metric with this id or name; a new name makes a new metric, as tracking an event does."""
        for metric in self.metrics.values():
            if name_or_id in (metric.id, metric.name):
                return metric
        return self._new_metric(name_or_id)

    def _new_metric(self, name: str) -> Metric:
        now = self.options.until
        row_id = metric_id(self.options, name)
        while row_id in self.metric_ids:  # of a metric that has since been renamed or deleted
            row_id = metric_id(self.options, row_id)
        metric = Metric(self.timeline.new_metric(), row_id, name, now, now, API)
        self.metrics[metric.id] = metric
        self.metric_ids.append(metric.id)
        self.generation += 1
        return metric
