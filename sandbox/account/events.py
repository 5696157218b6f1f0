"""Generates the events of an account: the number for each metric, and the time, person and source of each event.

Their distribution over time is as uneven as in real accounts: campaigns cause bursts, late November is several times
as busy as an ordinary week, and the account grows.
"""

from array import array
from bisect import bisect
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from random import Random

from sandbox.account.content import METRICS
from sandbox.account.ids import EventIds
from sandbox.account.model import Campaign, Flow, Group, Options
from sandbox.account.people import People, Suppression
from sandbox.account.properties import NO_SOURCE, Source, list_source, send_source, style
from sandbox.account.timeline import NOBODY, Timeline

Row = tuple[int, int, int]  # time, person, source number
_DAY = 86_400
_FUTURE_EVENTS = 6
_ACTIVE_SHARE = 0.95  # the others have no events


def generate_events(
    options: Options, people: People, lists: list[Group], campaigns: list[Campaign], flows: list[Flow]
) -> Timeline:
    """Return the timeline. Also fills in the members of the lists and the last event of each person."""
    rng = Random(f"history:{options.account}:{options.seed}")
    generator = _RowGenerator(options, people, rng)
    generator.number_sources(lists, campaigns, flows)
    generator.fill_lists(lists)
    times, metrics, persons, sources = array("I"), array("H"), array("I"), array("I")
    for metric, count in enumerate(_shares(options.events)):
        for time, person, source in generator.rows(METRICS[metric].style, count):
            times.append(time)
            persons.append(person)
            sources.append(source)
        metrics.extend([metric] * count)
    order = sorted(range(len(times)), key=times.__getitem__)
    times, metrics, persons, sources = (
        array(column.typecode, map(column.__getitem__, order)) for column in (times, metrics, persons, sources)
    )
    for time, person in zip(times, persons, strict=True):
        if person != NOBODY:
            people.last_event[person] = time
    styles = [style(kind.style, rng) for kind in METRICS]
    return Timeline(
        EventIds(options.account, options.seed), times, metrics, persons, sources, styles, generator.sources
    )


def _shares(events: int) -> list[int]:
    """Return the number of events of each metric. The numbers add up to `events`."""
    total = sum(kind.share for kind in METRICS)
    bounds = [round(events * share / total) for share in accumulate(kind.share for kind in METRICS)]
    return [high - low for low, high in zip([0, *bounds], bounds, strict=False)]


def _day_weight(day: datetime, age: float) -> float:
    season = 6.0 if (day.month, day.day) >= (11, 20) and day.month == 11 else 1.8 if day.month == 12 else 1.0
    return season * (0.6 if day.weekday() >= 5 else 1.0) * (0.4 + age)


class _RowGenerator:
    """A generator of rows for each style of event. It draws all random numbers from `rng`, in a fixed order."""

    def __init__(self, options: Options, people: People, rng: Random) -> None:
        self._options, self._people, self._rng = options, people, rng
        self._start, self._end = options.start, options.end
        self._active = max(1, int(len(people) * _ACTIVE_SHARE))
        self._days = [self._start + _DAY * day for day in range(options.days)]
        self._day_weights = list(
            accumulate(
                _day_weight(datetime.fromtimestamp(day, UTC), at / options.days) for at, day in enumerate(self._days)
            )
        )
        self.sources: list[Source] = [NO_SOURCE]
        self._list_sources: dict[str, int] = {}
        self._sends: dict[str, tuple[list[int], list[int], list[float]]] = {}
        self._flow_sources: list[int] = []
        self._joins: list[Row] = []
        self._leaves: list[Row] = []

    def number_sources(self, lists: list[Group], campaigns: list[Campaign], flows: list[Flow]) -> None:
        """Assign a number to everything that can cause events."""
        for group in lists:
            self._list_sources[group.id] = self._number(list_source(group.name))
        for channel in ("email", "sms"):
            sent = [row for row in campaigns if row.channel == channel and row.send_time and row.status == "Sent"]
            self._sends[channel] = self._campaign_sources(sent)
        for flow in flows:
            if flow.status != "draft":
                self._flow_sources += [
                    self._number(send_source(message.id, flow.id, message.name, message.subject, 0))
                    for message in flow.messages
                ]

    def _number(self, source: Source) -> int:
        self.sources.append(source)
        return len(self.sources) - 1

    def _campaign_sources(self, campaigns: list[Campaign]) -> tuple[list[int], list[int], list[float]]:
        numbers, times, weights = [], [], []
        for campaign in campaigns:
            assert campaign.send_time is not None
            sent_at = int(campaign.send_time.timestamp())
            weight = _day_weight(campaign.send_time, 1) * self._rng.uniform(0.2, 1) / len(campaign.messages)
            split = len(campaign.messages) > 1
            for message in campaign.messages:
                source = send_source(
                    message.id if split else campaign.id,
                    None,
                    campaign.name,
                    message.content.get("subject"),
                    sent_at,
                    message.id[-6:] if split else None,
                    message.id,
                    campaign.id,
                )
                numbers.append(self._number(source))
                times.append(sent_at)
                weights.append(weight)
        return numbers, times, list(accumulate(weights))

    def fill_lists(self, lists: list[Group]) -> None:
        """Draw who joined which list and when, who left it, and who is suppressed from a single list."""
        rng, joinable = self._rng, [group for group in lists if group.name != "Empty"]
        weights = list(accumulate(1 / (1 + at) for at in range(len(joinable))))
        for person in range(len(self._people)):
            for at in sorted({bisect(weights, rng.random() * weights[-1]) for _ in range(person % 4)}):
                self._join(person, joinable[at], rng)
        rng.shuffle(self._joins)
        rng.shuffle(self._leaves)

    def _join(self, person: int, group: Group, rng: Random) -> None:
        at = self._start + int(rng.random() * (self._end - self._start))
        later = at + int(rng.random() * (self._end - at))
        source = self._list_sources[group.id]
        self._joins.append((at, person, source))
        fate = rng.random()
        if fate >= 0.08:
            group.joined[person] = at
        if fate < 0.12:
            self._leaves.append((later, person, source))
        if 0.04 <= fate < 0.12:
            self._people.suppressions[person].append(Suppression("UNSUBSCRIBE", later, group.id))

    def rows(self, kind: str, count: int) -> list[Row]:
        """Draw `count` events of one style."""
        if kind in ("send", "open", "click"):
            return self._email_rows(count, {"send": 3_000, "open": 90_000, "click": 120_000}[kind])
        if kind in ("text", "text_click"):
            return self._campaign_rows("sms", count, 3_000)
        if kind in ("bounce", "spam", "unsubscribe"):
            reason = {"bounce": "HARD_BOUNCE", "spam": "SPAM_COMPLAINT", "unsubscribe": "UNSUBSCRIBE"}[kind]
            return self._fill_up(self._suppressed(reason), count, lambda n: self._email_rows(n, 20_000))
        if kind in ("join", "leave"):
            rows = self._joins if kind == "join" else self._leaves
            return self._fill_up(rows, count, lambda n: self._list_rows(n))
        rows = self._steady_rows(count, [0])
        if kind == "appointment":
            rows[:_FUTURE_EVENTS] = [
                (self._end + 3_600 * (1 + 9 * at), person, 0) for at, (_, person, _) in enumerate(rows[:_FUTURE_EVENTS])
            ]
        return rows

    def _person(self) -> int:
        if self._rng.random() < 0.002:
            return NOBODY
        return int(self._rng.random() ** 1.5 * self._active)

    def _email_rows(self, count: int, spread: int) -> list[Row]:
        by_flow = count * 3 // 10
        rows = self._campaign_rows("email", count - by_flow, spread) + self._steady_rows(by_flow, self._flow_sources)
        return [(at, self._with_email(person), source) for at, person, source in rows]

    def _with_email(self, person: int) -> int:
        return person + 1 if person % 17 == 5 and person + 1 < self._active else person

    def _campaign_rows(self, channel: str, count: int, spread: int) -> list[Row]:
        """Draw bursts: most events of a campaign happen soon after it is sent."""
        numbers, times, weights = self._sends[channel]
        random, last = self._rng.random, self._end - 1
        chosen = self._rng.choices(range(len(numbers)), cum_weights=weights, k=count)
        return [(min(times[at] + int(random() ** 4 * spread), last - at), self._person(), numbers[at]) for at in chosen]

    def _steady_rows(self, count: int, sources: Sequence[int]) -> list[Row]:
        random, many = self._rng.random, len(sources)
        days = self._rng.choices(self._days, cum_weights=self._day_weights, k=count)
        return [(day + int(random() * _DAY), self._person(), sources[int(random() * many)]) for day in days]

    def _list_rows(self, count: int) -> list[Row]:
        return self._steady_rows(count, list(self._list_sources.values()))

    def _suppressed(self, reason: str) -> list[Row]:
        numbers, _, _ = self._sends["email"]
        return [
            (suppression.at, person, numbers[person % len(numbers)])
            for person, suppressions in sorted(self._people.suppressions.items())
            for suppression in suppressions
            if suppression.reason == reason and suppression.list_id is None
        ]

    def _fill_up(self, implied: list[Row], count: int, draw: Callable[[int], list[Row]]) -> list[Row]:
        """Return the events that other data of the account implies, followed by drawn ones up to `count`."""
        return implied[:count] + draw(max(0, count - len(implied)))
