"""Query parameters of the current dialect: validated against the collection, and repeated in its links."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlencode

from sandbox.api.errors import ApiError
from sandbox.current.errors import invalid
from sandbox.current.filters import Condition, Field, parse


@dataclass(frozen=True)
class Collection:
    """The query parameters that a collection allows.

    If `max_page_size` is 0, the collection has no page[size]. `page_size` is then the fixed size of its pages, or 0 if
    it is not paged.
    """

    type: str
    fields: Mapping[str, Sequence[str]]
    filters: Mapping[str, Field] = field(default_factory=dict)
    sorts: Sequence[str] = ()
    includes: Sequence[str] = ()
    additional: Mapping[str, Sequence[str]] = field(default_factory=dict)
    page_size: int = 20
    max_page_size: int = 100

    def single(self) -> "Collection":
        """Return the parameters that a single row allows: no filter, sort or page."""
        return replace(self, filters={}, sorts=(), page_size=0, max_page_size=0)


@dataclass(frozen=True)
class Query:
    """The validated parameters of a request."""

    url: str
    parameters: list[tuple[str, str]]
    conditions: list[Condition]
    sort: str
    descending: bool
    include: tuple[str, ...]
    fields: dict[str, tuple[str, ...] | None]
    additional: tuple[str, ...]
    page_size: int
    cursor: list[Any] | None
    base: str = ""

    def link(self, cursor: list[Any]) -> str:
        """Return the URL of this request with another cursor."""
        rest = [(name, value) for name, value in self.parameters if name != "page[cursor]"]
        path = self.url.split("?")[0]
        return f"{path}?{urlencode([*rest, ('page[cursor]', encode_cursor(cursor))])}"


def read_query(allowed: Collection, base: str, url: str, parameters: list[tuple[str, str]]) -> Query:
    """Validate the parameters. Raise ApiError 400 for anything that the collection does not allow."""
    values = dict(parameters)
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
        parameters=parameters,
        conditions=parse(values["filter"], allowed.filters) if values.get("filter") else [],
        sort=sort.removeprefix("-"),
        descending=sort.startswith("-"),
        include=include,
        fields={kind: _fieldset(kind, names, values) for kind, names in allowed.fields.items()},
        additional=_additional(allowed, values),
        page_size=_page_size(allowed, values),
        cursor=decode_cursor(values["page[cursor]"]) if "page[cursor]" in values else None,
        base=base,
    )


def _refuse_unknown(allowed: Collection, values: dict[str, str]) -> None:
    optional = {
        "page[cursor]": allowed.page_size,
        "page[size]": allowed.max_page_size,
        "filter": allowed.filters,
        "sort": allowed.sorts,
        "include": allowed.includes,
    }
    valid = {name for name, choices in optional.items() if choices}
    valid |= {f"fields[{kind}]" for kind in allowed.fields}
    valid |= {f"additional-fields[{kind}]" for kind in allowed.additional}
    for name in values:
        if name not in valid:
            raise invalid(f"'{name}' is not a valid query parameter for this resource.", name)


def _csv(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _fieldset(kind: str, allowed: Sequence[str], values: dict[str, str]) -> tuple[str, ...] | None:
    parameter = f"fields[{kind}]"
    if parameter not in values:
        return None
    names = _csv(values[parameter])
    for name in names:
        if name.split(".")[0] not in allowed:
            raise invalid(f"'{name}' is not a valid field for the resource '{kind}'.", parameter)
    return names


def _additional(allowed: Collection, values: dict[str, str]) -> tuple[str, ...]:
    names: tuple[str, ...] = ()
    for kind, fields in allowed.additional.items():
        parameter = f"additional-fields[{kind}]"
        for name in _csv(values.get(parameter, "")):
            if name not in fields:
                raise invalid(f"'{name}' is not a valid additional field for the resource '{kind}'.", parameter)
            names += (name,)
    return names


def _page_size(allowed: Collection, values: dict[str, str]) -> int:
    text = values.get("page[size]")
    if text is None:
        return allowed.page_size
    if not text.isdecimal() or not 1 <= int(text) <= allowed.max_page_size:
        raise invalid(f"Page size must be an integer between 1 and {allowed.max_page_size}.", "page[size]")
    return int(text)


def encode_cursor(position: list[Any]) -> str:
    """Return an opaque cursor for a position."""
    return base64.urlsafe_b64encode(json.dumps(position, separators=(",", ":")).encode()).decode()


def decode_cursor(text: str) -> list[Any]:
    """Return the position in a cursor. Raise ApiError if `encode_cursor` did not make it."""
    error = ApiError(400, "invalid", "Invalid cursor provided.")
    try:
        position = json.loads(base64.b64decode(text.encode(), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, UnicodeError):
        raise error from None
    if not isinstance(position, list) or len(position) != 2:
        raise error
    return position
