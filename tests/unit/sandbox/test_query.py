"""Query parameters: what is accepted, what is refused in which words, and how links repeat them."""

import base64
import json
from urllib.parse import parse_qsl, urlsplit

import pytest

from sandbox import allowed
from sandbox.errors import ApiError
from sandbox.query import Collection, Query, decode_cursor, encode_cursor, read_query

BASE = "http://127.0.0.1:1"
COLLECTIONS = [
    pytest.param(allowed.EVENTS, 200, 1000, id="events"),
    pytest.param(allowed.PROFILES, 20, 100, id="profiles"),
    pytest.param(allowed.LIST_PROFILES, 20, 100, id="list members"),
    pytest.param(allowed.SEGMENT_PROFILES, 20, 100, id="segment members"),
    pytest.param(allowed.CAMPAIGNS, 100, 100, id="campaigns"),
    pytest.param(allowed.FLOWS, 50, 50, id="flows"),
    pytest.param(allowed.LISTS, 10, 10, id="lists"),
    pytest.param(allowed.SEGMENTS, 10, 10, id="segments"),
]


def read(collection: Collection, *given: tuple[str, str]) -> Query:
    return read_query(collection, BASE, f"{BASE}/api/things?whatever", list(given))


@pytest.mark.parametrize(("collection", "usual", "most"), COLLECTIONS)
def test_page_sizes(collection: Collection, usual: int, most: int) -> None:
    """Each collection has its own usual and largest page."""
    assert read(collection).size == usual
    assert read(collection, ("page[size]", str(most))).size == most
    assert read(collection, ("page[size]", "1")).size == 1


@pytest.mark.parametrize(("collection", "usual", "most"), COLLECTIONS)
@pytest.mark.parametrize("text", ["0", "-1", "ten", "", "1.5", "one too many"])
def test_page_sizes_refused(collection: Collection, usual: int, most: int, text: str) -> None:
    """A page that is too large, too small or no number is a 400."""
    asked = str(most + 1) if text == "one too many" else text
    with pytest.raises(ApiError) as refused:
        read(collection, ("page[size]", asked))
    assert refused.value.status == 400
    assert refused.value.detail == f"Page size must be an integer between 1 and {most}."
    assert refused.value.source == {"parameter": "page[size]"}


@pytest.mark.parametrize(
    ("collection", "name", "value", "detail"),
    [
        pytest.param(
            allowed.METRICS,
            "page[size]",
            "10",
            "'page[size]' is not a valid query parameter for this resource.",
            id="page size of metrics",
        ),
        pytest.param(
            allowed.METRICS, "sort", "name", "'sort' is not a valid query parameter for this resource.", id="no sort"
        ),
        pytest.param(
            allowed.EVENTS.single(),
            "page[cursor]",
            "x",
            "'page[cursor]' is not a valid query parameter for this resource.",
            id="page of a single row",
        ),
        pytest.param(
            allowed.EVENTS,
            "include",
            "profiless",
            "'profiless' is not an allowed include parameter for this resource.",
            id="include",
        ),
        pytest.param(
            allowed.EVENTS,
            "sort",
            "uuid",
            "'uuid' is not an allowed sort field.  Allowed sort fields are datetime, timestamp",
            id="sort",
        ),
        pytest.param(
            allowed.EVENTS,
            "sort",
            "--datetime",
            "'--datetime' is not an allowed sort field.  Allowed sort fields are datetime, timestamp",
            id="sort twice reversed",
        ),
        pytest.param(
            allowed.EVENTS,
            "fields[event]",
            "datetime,colour",
            "'colour' is not a valid field for the resource 'event'.",
            id="field",
        ),
        pytest.param(
            allowed.EVENTS,
            "fields[list]",
            "name",
            "'fields[list]' is not a valid query parameter for this resource.",
            id="fields of another resource",
        ),
        pytest.param(
            allowed.PROFILES,
            "additional-fields[profile]",
            "subscription",
            "'subscription' is not a valid additional field for the resource 'profile'.",
            id="additional field",
        ),
    ],
)
def test_refused(collection: Collection, name: str, value: str, detail: str) -> None:
    """A parameter that the collection does not know is a 400 that names it."""
    with pytest.raises(ApiError) as refused:
        read(collection, (name, value))
    assert (refused.value.status, refused.value.detail) == (400, detail)
    assert refused.value.source == {"parameter": name}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("abc", id="no base64"),
        pytest.param("é", id="not ASCII"),
        pytest.param(base64.b64encode(b"hello").decode(), id="no JSON"),
        pytest.param(base64.b64encode(b'{"a":1}').decode(), id="no list"),
        pytest.param(base64.b64encode(b"[1]").decode(), id="too short"),
        pytest.param("WzEsMl0%3D", id="encoded twice"),
    ],
)
def test_bad_cursor(text: str) -> None:
    """A cursor that this server has not made is refused in Klaviyo's words."""
    with pytest.raises(ApiError) as refused:
        decode_cursor(text)
    assert (refused.value.status, refused.value.code) == (400, "invalid")
    assert refused.value.detail == "Invalid cursor provided."
    assert refused.value.source == {"pointer": "/data/"}


@pytest.mark.parametrize("place", [[0, 0], ["", "id"], ['"\n🎁\x00', "x" * 5000], [2**62, 2**40]], ids=repr)
def test_cursor_round_trip(place: list[object]) -> None:
    """What went into a cursor comes out."""
    assert decode_cursor(encode_cursor(place)) == place


def test_next_link_repeats_the_query() -> None:
    """The next page is asked for with everything the first was asked for, and its own cursor."""
    given = [
        ("filter", 'contains(name,"a+b & c, 50%")'),
        ("sort", "-name"),
        ("page[size]", "3"),
        ("fields[flow]", "name"),
        ("page[cursor]", encode_cursor(["a", "b"])),
    ]
    link = urlsplit(read(allowed.FLOWS, *given).link(["c", "d"]))
    assert f"{link.scheme}://{link.netloc}{link.path}" == f"{BASE}/api/things"
    assert parse_qsl(link.query) == [*given[:-1], ("page[cursor]", encode_cursor(["c", "d"]))]


def test_error_document() -> None:
    """An error is a JSON:API document with all that Klaviyo's have."""
    with pytest.raises(ApiError) as refused:
        read(allowed.EVENTS, ("sort", "x"))
    (error,) = json.loads(json.dumps(refused.value.body("some-id")))["errors"]
    assert set(error) == {"id", "status", "code", "title", "detail", "source", "links", "meta"}
