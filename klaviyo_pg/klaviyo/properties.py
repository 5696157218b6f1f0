"""What is read out of properties, in which anything may stand: of events and of people, in either dialect."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

from klaviyo_pg.klaviyo.rows import Events

_NULL = Raw(b"null")


class _Known(Struct, gc=False):
    """The properties of an event that have a meaning of their own."""

    message: Any = field(default=None, name="$message")
    flow: Any = field(default=None, name="$flow")
    campaign_name: Any = field(default=None, name="Campaign Name")
    subject: Any = field(default=None, name="Subject")
    list_name: Any = field(default=None, name="List")
    value: Raw = field(default=_NULL, name="$value")
    value_currency: Any = field(default=None, name="$value_currency")


_NOTHING = _Known()
_decode_known = msgspec.json.Decoder(_Known).decode
_decode = msgspec.json.Decoder().decode


def events(
    ids: list[str],
    at: list[int],
    metric_ids: list[str | None],
    profile_ids: list[str | None],
    emails: list[str | None],
    properties: Sequence[Raw],
) -> Events:
    """Events by column, with what their properties say. All arguments have the same length."""
    known = [_known(found) for found in properties]
    return Events(
        id=ids,
        at=at,
        metric_id=metric_ids,
        profile_id=profile_ids,
        email=emails,
        message=[plain_text(found.message) for found in known],
        flow=[plain_text(found.flow) for found in known],
        campaign_name=[plain_text(found.campaign_name) for found in known],
        subject=[plain_text(found.subject) for found in known],
        list_name=[plain_text(found.list_name) for found in known],
        value=[text(found.value) for found in known],
        value_currency=[plain_text(found.value_currency) for found in known],
        properties=[str(found, "utf-8") for found in properties],
    )


def _known(properties: Raw) -> _Known:
    try:
        return _decode_known(properties)
    except msgspec.ValidationError:  # a list, or null
        return _NOTHING


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
        return None if value is None else float(value)
    except ValueError:
        return None


def texts(properties: Mapping[str, Raw], without: Collection[str]) -> list[tuple[str, str | None]]:
    """A person's custom properties as (name, text)."""
    return [(name, text(value)) for name, value in properties.items() if name not in without]
