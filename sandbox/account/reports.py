"""The performance of campaigns and of messages of flows, added up from the events of an account by day of sending.

Events of a campaign belong to the day on which it was sent, those of a flow to the day on which they happened. Must not
know how an API presents them.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo
from typing import NamedTuple

from sandbox.account.attributions import Attribution, variation_of
from sandbox.account.model import Account, Campaign

_COUNTED = {
    "Received Email": "delivered",
    "Received Text Message": "delivered",
    "Bounced Email": "bounced",
    "Opened Email": "opens",
    "Clicked Email": "clicks",
    "Clicked Text Message": "clicks",
    "Marked Email as Spam": "spam_complaints",
    "Unsubscribed from Email Marketing": "unsubscribes",
}
_CHANNELS = {"mobile_push": "push-notification"}


class Sent(NamedTuple):
    """A message, or a variation of it, as it was sent on one day. `owner` is the id of the campaign or the flow."""

    day: date
    owner: str
    message: str
    channel: str
    variation: str | None


@dataclass
class Figures:
    """The events of a message by what they count as, the people who caused them, and the value of conversions."""

    counts: Counter[str] = field(default_factory=Counter)
    people: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    value: float = 0.0

    def add(self, name: str, person: int, value: float = 0.0) -> None:
        """Count an event."""
        self.counts[name] += 1
        self.people[name].add(person)
        self.value += value

    @staticmethod
    def total(several: "Iterable[Figures]") -> "Figures":
        """Add up figures. A person counts once."""
        total = Figures()
        for each in several:
            total.counts += each.counts
            total.value += each.value
            for name, people in each.people.items():
                total.people[name] |= people
        return total


class Performance(NamedTuple):
    """The figures of everything that was sent, by campaigns and by flows."""

    campaigns: Mapping[Sent, Figures]
    flows: Mapping[Sent, Figures]


def performance(account: Account, conversion_metric: int, zone: tzinfo) -> Performance:
    """Add up all events of an account. Days are those of a time zone; deleted campaigns and flows are left out."""
    return _Addition(account, zone).run(conversion_metric)


class _Addition:
    """The figures of an account, while they are added up."""

    def __init__(self, account: Account, zone: tzinfo) -> None:
        self._account, self._zone = account, zone
        self._campaigns: dict[Sent, Figures] = defaultdict(Figures)
        self._flows: dict[Sent, Figures] = defaultdict(Figures)
        self._messages = {
            each: (campaign, message.id)
            for campaign in account.campaigns.values()
            for message in campaign.messages
            for each in (message.id, campaign.id)
        }

    def run(self, conversion_metric: int) -> Performance:
        """Return all figures."""
        metrics, timeline = self._account.metrics.values(), self._account.timeline
        counted = {metric.number: name for metric in metrics if (name := _COUNTED.get(metric.name))}
        for ref in timeline.every():
            number = timeline.metric(ref)
            if number in counted:
                self._count(ref, counted[number])
            if number == conversion_metric:
                self._convert(ref)
        return Performance(self._campaigns, self._flows)

    def _count(self, ref: int, name: str) -> None:
        timeline = self._account.timeline
        source = timeline.source(ref)
        if source.flow is None:
            figures = self._of_campaign(source.campaign_message or source.message, ref)
        else:
            figures = self._of_flow(source.flow, source.message, ref)
        if figures is not None:
            figures.add(name, timeline.person(ref))

    def _convert(self, ref: int) -> None:
        timeline, counted = self._account.timeline, list[Figures]()
        for attribution in self._account.attributions.of(ref):
            figures = self._attributed(attribution, ref)
            if figures is not None and not any(figures is each for each in counted):
                figures.add("conversions", timeline.person(ref), timeline.value(ref))
                counted.append(figures)

    def _attributed(self, attribution: Attribution, ref: int) -> Figures | None:
        if attribution.flow is not None:
            return self._of_flow(attribution.flow, attribution.flow_message, ref)
        return self._of_campaign(attribution.campaign_message or attribution.campaign, ref)

    def _of_campaign(self, message: str | None, ref: int) -> Figures | None:
        campaign, message_id = self._messages.get(message or "", (None, ""))
        if campaign is None:
            return None
        channel = _CHANNELS.get(campaign.channel, campaign.channel)
        variation = message_id[-6:] if len(campaign.messages) > 1 else None
        return self._campaigns[Sent(self._day(campaign, ref), campaign.id, message_id, channel, variation)]

    def _of_flow(self, flow: str, message: str | None, ref: int) -> Figures | None:
        if flow not in self._account.flows or message is None:
            return None
        return self._flows[Sent(self._day(None, ref), flow, message, "email", variation_of(message))]

    def _day(self, campaign: Campaign | None, ref: int) -> date:
        if campaign is not None and campaign.send_time is not None:
            return campaign.send_time.astimezone(self._zone).date()
        return datetime.fromtimestamp(self._account.timeline.time(ref), UTC).astimezone(self._zone).date()


def statistics(figures: Figures) -> dict[str, float]:
    """Return every statistic that a report can have, by its name."""
    made = dict(_statistics(figures))
    delivered, recipients = made["delivered"], made["recipients"]
    shares = {
        "bounce_rate": (made["bounced"], recipients),
        "bounced_or_failed_rate": (made["bounced_or_failed"], recipients),
        "delivery_rate": (delivered, recipients),
        "failed_rate": (made["failed"], recipients),
        "open_rate": (made["opens_unique"], delivered),
        "click_rate": (made["clicks_unique"], delivered),
        "click_to_open_rate": (made["clicks_unique"], made["opens_unique"]),
        "conversion_rate": (made["conversion_uniques"], delivered),
        "spam_complaint_rate": (made["spam_complaints"], delivered),
        "unsubscribe_rate": (made["unsubscribe_uniques"], delivered),
        "average_order_value": (made["conversion_value"], made["conversions"]),
        "revenue_per_recipient": (made["conversion_value"], delivered),
    }
    return made | {name: part / whole if whole else 0.0 for name, (part, whole) in shares.items()}


def _statistics(figures: Figures) -> Iterator[tuple[str, float]]:
    counts, people = figures.counts, figures.people
    for name in ("delivered", "bounced", "opens", "clicks", "spam_complaints", "unsubscribes", "conversions"):
        yield name, counts[name]
    yield "recipients", counts["delivered"] + counts["bounced"]
    yield "bounced_or_failed", counts["bounced"]
    yield "failed", 0
    yield "opens_unique", len(people["opens"])
    yield "clicks_unique", len(people["clicks"])
    yield "unsubscribe_uniques", len(people["unsubscribes"])
    yield "conversion_uniques", len(people["conversions"])
    yield "conversion_value", round(figures.value, 2)
    yield "message_segment_count_sum", 0
    yield "text_message_credit_usage_amount", 0.0
    yield "text_message_roi", 0.0
    yield "text_message_spend", 0.0
