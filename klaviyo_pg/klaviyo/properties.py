"""What is read out of properties, in which anything may stand: of events and of people, in either dialect."""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Raw, Struct, field

from klaviyo_pg.errors import BadAnswer
from klaviyo_pg.klaviyo.documents import reject
from klaviyo_pg.klaviyo.rows import Events, Reject

Event = TypeVar("Event", bound=Struct)
_NULL = Raw(b"null")


class Known(Struct, gc=False):
    """The properties of an event that have a meaning of their own, as text."""

    message: str | None = field(default=None, name="$message")
    flow: str | None = field(default=None, name="$flow")
    campaign_name: str | None = field(default=None, name="Campaign Name")
    subject: str | None = field(default=None, name="Subject")
    list_name: str | None = field(default=None, name="List")
    value: Raw = field(default=_NULL, name="$value")
    value_currency: str | None = field(default=None, name="$value_currency")


class _Undecoded(Struct):
    """The same where one of them is no text."""

    message: Raw = field(default=_NULL, name="$message")
    flow: Raw = field(default=_NULL, name="$flow")
    campaign_name: Raw = field(default=_NULL, name="Campaign Name")
    subject: Raw = field(default=_NULL, name="Subject")
    list_name: Raw = field(default=_NULL, name="List")
    value: Raw = field(default=_NULL, name="$value")
    value_currency: Raw = field(default=_NULL, name="$value_currency")


_NOTHING = Known()
_NUL = "\0"
_NUL_IN_ID = "The id has a NUL character, which Postgres cannot hold."
_decode_known = msgspec.json.Decoder(Known).decode
_decode_undecoded = msgspec.json.Decoder(_Undecoded).decode
_decode = msgspec.json.Decoder().decode


class Read(NamedTuple):
    """What the properties of events say, and the places of those events that cannot be stored, with the reason."""

    known: list[Known]
    unreadable: Mapping[int, Exception]

    def readable(self, found: list[Event], rejects: list[Reject]) -> list[Event]:
        """The events that belong to `known`; the others are put among the rejects."""
        if not self.unreadable:
            return found
        rejects += [reject(msgspec.json.encode(found[at]), error) for at, error in self.unreadable.items()]
        return [event for at, event in enumerate(found) if at not in self.unreadable]


def read(ids: Sequence[str], properties: Sequence[Raw]) -> Read:
    """Read the properties of events; those that are no object say nothing. An id with a NUL might be another's."""
    if _NUL in "".join(ids):
        wrong: dict[int, Exception] = {at: ValueError(_NUL_IN_ID) for at, each in enumerate(ids) if _NUL in each}
    else:
        wrong = {}
    known = []
    for at, found in enumerate(properties):
        try:
            known.append(_decode_known(found))
        except (msgspec.ValidationError, RecursionError):
            try:
                known.append(_known(found))
            except RecursionError as error:
                known.append(_NOTHING)
                wrong[at] = error
    return Read([each for at, each in enumerate(known) if at not in wrong] if wrong else known, wrong)


def _known(properties: Raw) -> Known:
    try:
        found = _decode_undecoded(properties)
    except msgspec.ValidationError:  # a list, or null
        return _NOTHING
    texts = {name: text(getattr(found, name)) for name in _Undecoded.__struct_fields__ if name != "value"}
    return Known(**texts, value=found.value)


def events(
    ids: list[str],
    at: list[int],
    metric_ids: list[str | None],
    profile_ids: list[str | None],
    emails: list[str | None],
    properties: Sequence[Raw],
    known: Sequence[Known],
) -> Events:
    """Events by column, with what their properties say. All arguments have the same length."""
    return Events(
        id=ids,
        at=at,
        metric_id=metric_ids,
        profile_id=profile_ids,
        email=emails,
        message=[found.message for found in known],
        flow=[found.flow for found in known],
        campaign_name=[found.campaign_name for found in known],
        subject=[found.subject for found in known],
        list_name=[found.list_name for found in known],
        value=[text(found.value) for found in known],
        value_currency=[found.value_currency for found in known],
        properties=[str(found, "utf-8") for found in properties],
    )


def check_metric(page: Events, asked: str | None) -> None:
    """Raises BadAnswer for a page of events that are all of other metrics than the one that was asked for."""
    if asked is not None and asked not in page.metric_id and any(page.metric_id):
        raise BadAnswer(f"The API was asked for events of the metric {asked} and answered with those of others.")


def plain_text(value: Any) -> str | None:
    """A decoded JSON value as text: a string as it is, null as None, anything else as JSON."""
    if value is None or type(value) is str:
        return value
    return msgspec.json.encode(value).decode()


def text(value: Raw | None) -> str | None:
    """The same of an undecoded one, so that no digit of a number is lost."""
    if value is None:
        return None
    raw = str(value, "utf-8")
    if raw.startswith('"'):
        return str(_decode(value))
    return None if raw == "null" else raw


def number(value: float | str | None) -> float | None:
    """A number that may have come as text; None where it is none."""
    try:
        found = math.nan if value is None else float(value)
    except ValueError:
        return None
    return found if math.isfinite(found) else None


def texts(properties: Mapping[str, Raw], without: Collection[str]) -> list[tuple[str, str | None]]:
    """A person's custom properties as (name, text)."""
    return [(name, text(value)) for name, value in properties.items() if name not in without]
