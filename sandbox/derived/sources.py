"""The cause of each event: the campaign that was sent last or shortly before, a message of a flow, or a list."""

from bisect import bisect_right
from collections.abc import Sequence

from sandbox.account.model import Campaign, Flow, Group
from sandbox.account.properties import NO_SOURCE, Source, list_source, send_source

_OF_EMAILS = frozenset(("send", "open", "click", "bounce", "spam", "unsubscribe"))
_OF_TEXTS = frozenset(("text", "text_click"))
_OF_LISTS = frozenset(("join", "leave"))
_RECENT = 6  # campaigns


class Sources:
    """All sources, by number. Number 0 stands for no source."""

    def __init__(
        self, styles: Sequence[str], lists: Sequence[Group], campaigns: Sequence[Campaign], flows: Sequence[Flow]
    ) -> None:
        self._styles = styles
        self.all: list[Source] = [NO_SOURCE]
        self._lists = [self._add(list_source(group.name)) for group in lists]
        self._flows = [
            self._add(send_source(message.id, flow.id, message.name, message.subject, 0))
            for flow in flows
            for message in flow.messages
        ]
        self._emails = self._campaigns("email", campaigns)
        self._texts = self._campaigns("sms", campaigns)

    def _add(self, source: Source) -> int:
        self.all.append(source)
        return len(self.all) - 1

    def _campaigns(self, channel: str, campaigns: Sequence[Campaign]) -> tuple[list[int], list[int]]:
        """Return when the campaigns of a channel were sent, in order, and their numbers."""
        sent = sorted(
            (int(row.send_time.timestamp()), row.id, row)
            for row in campaigns
            if row.channel == channel and row.send_time and row.status == "Sent"
        )
        sources = [
            send_source(
                _sent_as(row),
                None,
                row.name,
                row.messages[0].content.get("subject"),
                at,
                campaign_message=row.messages[0].id,
                campaign=row.id,
            )
            for at, _, row in sent
        ]
        return [at for at, _, _ in sent], [self._add(source) for source in sources]

    def number(self, metric: int, ref: int, time: int) -> int:
        """Return the number of an event's source."""
        style = self._styles[metric]
        pick = ref * 0x9E3779B1 >> 7 & 0xFFFF
        if style in _OF_EMAILS:
            return self._flows[pick % len(self._flows)] if pick % 10 < 3 else _recent(self._emails, time, pick)
        if style in _OF_TEXTS:
            return _recent(self._texts, time, pick)
        return self._lists[pick % len(self._lists)] if style in _OF_LISTS else 0


def _sent_as(campaign: Campaign) -> str:
    """Return the id that the events of a campaign have: of the campaign, or of its first message if it has several."""
    return campaign.messages[0].id if len(campaign.messages) > 1 else campaign.id


def _recent(campaigns: tuple[list[int], list[int]], time: int, pick: int) -> int:
    times, numbers = campaigns
    last = bisect_right(times, time) - 1 - pick % _RECENT
    return numbers[last] if last >= 0 else 0
