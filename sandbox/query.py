"""Query parameters of the current dialect: checked against what a collection allows, and repeated in its links."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from sandbox.errors import ApiError, invalid
from sandbox.filters import Condition, Field, parse


@dataclass(frozen=True)
class Collection:
    """What one collection allows.

    `most` 0: it has no page[size]; `size` is then the fixed size of its pages, or 0 if it has none.
    """

    type: str
    fields: Mapping[str, Sequence[str]]
    filters: Mapping[str, Field] = field(default_factory=dict)
    sorts: Sequence[str] = ()
    includes: Sequence[str] = ()
    additional: Mapping[str, Sequence[str]] = field(default_factory=dict)
    size: int = 20
    most: int = 100

    def single(self) -> "Collection":
        """What one row of the collection allows: there is nothing to filter, sort or page."""
        return replace(self, filters={}, sorts=(), size=0, most=0)


@dataclass(frozen=True)
class Query:
    """One request's parameters, checked."""

    url: str
    given: list[tuple[str, str]]
    conditions: list[Condition]
    sort: str
    descending: bool
    include: tuple[str, ...]
    fields: dict[str, tuple[str, ...] | None]
    additional: tuple[str, ...]
    size: int
    cursor: list[Any] | None
    base: str = ""

    def link(self, cursor: list[Any]) -> str:
        """The same request, going on at another cursor."""
        rest = [(name, value) for name, value in self.given if name != "page[cursor]"]
        path = self.url.split("?")[0]
        return f"{path}?{urlencode([*rest, ('page[cursor]', encode_cursor(cursor))])}"


def read_query(allowed: Collection, base: str, url: str, given: list[tuple[str, str]]) -> Query:
    """Check the parameters; ApiError 400 for anything that the collection does not know."""
    values = dict(given)
    _refuse_unknown(allowed, values)
    sort = values.get("sort", "")
    if sort and sort.removeprefix("-") not in allowed.sorts:
        choices = ", ".join(allowed.sorts)
        raise invalid(f"'{sort}' is not an allowed sort field.  Allowed sort fields are {choices}", "sort")
    include = _csv(values.get("include", ""))
    for name in include:
        if name not in allowed.includes:
            raise invalid(f"'{name}' is not an allowed include parameter for this resource.", "include")
    return Query(
        url=url,
        given=given,
        conditions=parse(values["filter"], allowed.filters) if values.get("filter") else [],
        sort=sort.removeprefix("-"),
        descending=sort.startswith("-"),
        include=include,
        fields={kind: _fieldset(kind, known, values) for kind, known in allowed.fields.items()},
        additional=_additional(allowed, values),
        size=_size(allowed, values),
        cursor=decode_cursor(values["page[cursor]"]) if "page[cursor]" in values else None,
        base=base,
    )


def _refuse_unknown(allowed: Collection, values: dict[str, str]) -> None:
    known = {name for name, has in (("page[cursor]", allowed.size), ("page[size]", allowed.most)) if has}
    known |= {
        name
        for name, has in (("filter", allowed.filters), ("sort", allowed.sorts), ("include", allowed.includes))
        if has
    }
    known |= {f"fields[{kind}]" for kind in allowed.fields}
    known |= {f"additional-fields[{kind}]" for kind in allowed.additional}
    for name in values:
        if name not in known:
            raise invalid(f"'{name}' is not a valid query parameter for this resource.", name)


def _csv(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _fieldset(kind: str, known: Sequence[str], values: dict[str, str]) -> tuple[str, ...] | None:
    parameter = f"fields[{kind}]"
    if parameter not in values:
        return None
    names = _csv(values[parameter])
    for name in names:
        if name.split(".")[0] not in known:
            raise invalid(f"'{name}' is not a valid field for the resource '{kind}'.", parameter)
    return names


def _additional(allowed: Collection, values: dict[str, str]) -> tuple[str, ...]:
    names: tuple[str, ...] = ()
    for kind, known in allowed.additional.items():
        parameter = f"additional-fields[{kind}]"
        for name in _csv(values.get(parameter, "")):
            if name not in known:
                raise invalid(f"'{name}' is not a valid additional field for the resource '{kind}'.", parameter)
            names += (name,)
    return names


def _size(allowed: Collection, values: dict[str, str]) -> int:
    text = values.get("page[size]")
    if text is None:
        return allowed.size
    if not text.isdecimal() or not 1 <= int(text) <= allowed.most:
        raise invalid(f"Page size must be an integer between 1 and {allowed.most}.", "page[size]")
    return int(text)


def encode_cursor(place: list[Any]) -> str:
    """An opaque text that a reader brings back."""
    return base64.urlsafe_b64encode(json.dumps(place, separators=(",", ":")).encode()).decode()


def decode_cursor(text: str) -> list[Any]:
    """The place in a cursor that this server has made; ApiError for any other text."""
    wrong = ApiError(400, "invalid", "Invalid cursor provided.")
    try:
        place = json.loads(base64.b64decode(text.encode(), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, UnicodeError):
        raise wrong from None
    if not isinstance(place, list) or len(place) != 2:
        raise wrong
    return place
