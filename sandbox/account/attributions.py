"""The attributions of orders to messages: to the last email or text message that the person opened or clicked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sandbox.account.ids import token
from sandbox.account.timeline import ADDED, Timeline
from sandbox.hashing import stable_hash

CONVERSIONS = ("Placed Order", "Ordered Product")
TOUCHES = ("Opened Email", "Clicked Email", "Clicked Text Message")
SECONDS = 5 * 86_400  # between a touch and an order


@dataclass(frozen=True, slots=True)
class Attribution:
    """An attribution of an event, by the ids of what it is attributed to. `event` is the touch."""

    id: str
    event: str | None
    campaign: str | None
    campaign_message: str | None
    flow: str | None
    flow_message: str | None
    variation: str | None


def variation_of(flow_message: str) -> str | None:
    """Return the variation of a message of a flow that all its recipients get; None if it has none."""
    return token("variation", flow_message) if stable_hash("variation", flow_message) % 3 == 0 else None


class Attributions:
    """The attributions of the events of a timeline. Those of some events can be replaced, as late ones are.

    `metrics` has the number of each metric by name.
    """

    def __init__(self, account: str, timeline: Timeline, metrics: Mapping[str, int]) -> None:
        self._account, self._timeline = account, timeline
        self._conversions = frozenset(metrics[name] for name in CONVERSIONS if name in metrics)
        self._touches = frozenset(metrics[name] for name in TOUCHES if name in metrics)
        self._replaced: dict[int, Sequence[Attribution]] = {}

    @property
    def replaced(self) -> int:
        """The number of events whose attributions were replaced."""
        return len(self._replaced)

    def of(self, ref: int) -> Sequence[Attribution]:
        """Return the attributions of an event: at most one, unless they were replaced."""
        if ref in self._replaced:
            return self._replaced[ref]
        if ref >= ADDED or self._timeline.metrics[ref] not in self._conversions:
            return ()
        touch = self._touch(ref)
        return () if touch is None else self._to(ref, touch)

    def replace(self, ref: int, touches: Sequence[int]) -> None:
        """Attribute an event to other events instead, or to none."""
        self._replaced[ref] = [each for touch in touches for each in self._to(ref, touch)]

    def _to(self, ref: int, touch: int) -> Sequence[Attribution]:
        source = self._timeline.source(touch)
        if source.message is None:
            return ()
        attribution_id = f"{stable_hash('attribution', self._account, ref, touch):032x}"
        event = self._timeline.id(touch)
        if source.flow is None:
            campaign = source.campaign or source.message
            return [Attribution(attribution_id, event, campaign, source.campaign_message, None, None, None)]
        variation = variation_of(source.message)
        return [Attribution(attribution_id, event, None, None, source.flow, source.message, variation)]

    def _touch(self, ref: int) -> int | None:
        """Return the person's last touch before an event, unless it is too long ago."""
        times, metrics = self._timeline.times, self._timeline.metrics
        for earlier in self._timeline.earlier(ref):
            if times[earlier] < times[ref] - SECONDS:
                return None
            if metrics[earlier] in self._touches:
                return earlier
        return None
