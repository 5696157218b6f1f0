"""Values read from the properties of events and people, in either dialect. Properties can contain any JSON."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from klaviyo_pg.errors import BadAnswer
from klaviyo_pg.klaviyo.documents import reject
from klaviyo_pg.rows import Events, Reject

Event = TypeVar("Event", bound=Struct)
_NULL = Raw(b"null")


class Extracted(Struct, gc=False):
    """The properties of an event that are columns of its table. Klaviyo has had three names for opens by machines."""

    message: str | None = field(default=None, name="$message")
    flow: str | None = field(default=None, name="$flow")
    campaign_name: str | None = field(default=None, name="Campaign Name")
    subject: str | None = field(default=None, name="Subject")
    list_name: str | None = field(default=None, name="List")
    value: Raw = field(default=_NULL, name="$value")
    value_currency: str | None = field(default=None, name="$value_currency")
    variation: str | None = field(default=None, name="$variation")
    email_domain: str | None = field(default=None, name="Email Domain")
    machine_open: bool | None = None
    machine_open_titled: bool | None = field(default=None, name="Machine Open")
    privacy_open: bool | None = field(default=None, name="Apple Privacy Open")
    bot_click: bool | None = field(default=None, name="Bot Click")


_Undecoded = msgspec.defstruct(
    "_Undecoded",
    [(each.name, Raw, field(default=_NULL, name=each.encode_name)) for each in msgspec.structs.fields(Extracted)],
)
"""The undecoded properties, for events where one of them has another type than expected."""
_NOTHING = Extracted()
_FLAGS = ("machine_open", "machine_open_titled", "privacy_open", "bot_click")
_TEXTS = tuple(name for name in Extracted.__struct_fields__ if name not in ("value", *_FLAGS))
_TRUTH = {"true": True, "false": False}
_STRINGS = frozenset({str})
_NUL = "\0"
_NUL_IN_ID = "The id has a NUL character, which Postgres cannot hold."
_decode_extracted = msgspec.json.Decoder(Extracted).decode
_decode_undecoded = msgspec.json.Decoder(_Undecoded).decode
_decode = msgspec.json.Decoder().decode
_decode_list = msgspec.json.Decoder(list[Any]).decode


class Extraction(NamedTuple):
    """The extracts of the events that can be stored, and the error for each of the others, by index."""

    extracted: list[Extracted]
    unreadable: Mapping[int, Exception]

    def readable(self, events: list[Event], rejects: list[Reject]) -> list[Event]:
        """Return the events that `extracted` belongs to. Add the others to the rejects."""
        if not self.unreadable:
            return events
        rejects += [reject(msgspec.json.encode(events[at]), error) for at, error in self.unreadable.items()]
        return [event for at, event in enumerate(events) if at not in self.unreadable]


def read(ids: Sequence[str], properties: Sequence[Raw]) -> Extraction:
    """Extract the properties of events. From properties that are not an object, nothing is extracted.

    An event with a NUL in its id is unreadable: without the NUL, its id could be that of another event.
    """
    if _NUL in "".join(ids):
        wrong: dict[int, Exception] = {at: ValueError(_NUL_IN_ID) for at, each in enumerate(ids) if _NUL in each}
    else:
        wrong = {}
    extracted = []
    for at, raw in enumerate(properties):
        try:
            extracted.append(_decode_extracted(raw))
        except (msgspec.ValidationError, RecursionError):
            try:
                extracted.append(_extracted(raw))
            except RecursionError as error:
                extracted.append(_NOTHING)
                wrong[at] = error
    return Extraction([each for at, each in enumerate(extracted) if at not in wrong] if wrong else extracted, wrong)


def _extracted(properties: Raw) -> Extracted:
    try:
        undecoded: Any = _decode_undecoded(properties)
    except msgspec.ValidationError:  # a list, or null
        return _NOTHING
    texts = {name: text(getattr(undecoded, name)) for name in _TEXTS}
    flags = {name: _TRUTH.get((text(getattr(undecoded, name)) or "").lower()) for name in _FLAGS}
    values: dict[str, Any] = {**texts, **flags}
    return Extracted(**values, value=undecoded.value)


def events(
    ids: list[str],
    at: list[int],
    metric_ids: list[str | None],
    profile_ids: list[str | None],
    emails: list[str | None],
    properties: Sequence[Raw],
    extracted: Sequence[Extracted],
) -> Events:
    """Return events by column. All arguments have the same length."""
    return Events(
        id=ids,
        at=at,
        metric_id=metric_ids,
        profile_id=profile_ids,
        email=emails,
        message=[each.message for each in extracted],
        flow=[each.flow for each in extracted],
        campaign_name=[each.campaign_name for each in extracted],
        subject=[each.subject for each in extracted],
        list_name=[each.list_name for each in extracted],
        value=[None if each.value is _NULL else text(each.value) for each in extracted],
        value_currency=[each.value_currency for each in extracted],
        properties=[bytes(raw) for raw in properties],  # a page is not kept in memory for them
        is_machine_open=_opened_by_machine(extracted),
        is_bot_click=[each.bot_click for each in extracted],
        variation=[each.variation for each in extracted],
        email_domain=[each.email_domain for each in extracted],
    )


def _opened_by_machine(extracted: Sequence[Extracted]) -> list[bool | None]:
    """Return true for each event of which any property says so, and false if one only denies it."""
    flags = [each.machine_open for each in extracted]
    for others in ([each.machine_open_titled for each in extracted], [each.privacy_open for each in extracted]):
        if others.count(None) < len(others):
            flags = [other if flag is None else flag or bool(other) for flag, other in zip(flags, others, strict=True)]
    return flags


def check_metric(page: Events, metric_id: str | None) -> None:
    """Raise BadAnswer if events of one metric were requested and all events of a page belong to others."""
    if metric_id is not None and metric_id not in page.metric_id and any(page.metric_id):
        raise BadAnswer(
            f"The API was asked for events of the metric {metric_id} and returned only events of other metrics, so it "
            "ignores the filter. Check KLAVIYO_BASE_URL."
        )


def plain_text(value: Any) -> str | None:
    """Return a decoded JSON value as text: a string unchanged, null as None, anything else as JSON."""
    if value is None or type(value) is str:
        return value
    return msgspec.json.encode(value).decode()


def text(value: Raw | None) -> str | None:
    """Return an undecoded JSON value as text, like `plain_text`. No digit of a number is lost."""
    if value is None:
        return None
    raw = str(value, "utf-8")
    if raw.startswith('"'):
        return str(_decode(value))
    return None if raw == "null" else raw


def number(value: float | str | None) -> float | None:
    """Return a finite number, which may be written as text. Return None for anything else."""
    try:
        parsed = math.nan if value is None else float(value)
    except ValueError:
        return None
    return parsed if math.isfinite(parsed) else None


def texts(properties: Mapping[str, Raw], without: Collection[str]) -> dict[str, str | None]:
    """Return a person's properties as text by name, except the names in `without`.

    Most values are strings, which are decoded at once.
    """
    try:
        values = _decode_list(b"".join((b"[", b",".join(properties.values()), b"]")))
    except (msgspec.MsgspecError, RecursionError):
        values = [None] * len(properties)
    texts = dict(zip(properties, values, strict=True))
    if not _STRINGS.issuperset(map(type, values)):
        texts = {name: value if type(value) is str else text(properties[name]) for name, value in texts.items()}
    for name in without:
        texts.pop(name, None)
    return texts
