"""Query parameters: valid ones, the errors for invalid ones, and the links that repeat them."""

import base64
import json
from urllib.parse import parse_qsl, urlsplit

import pytest

from sandbox.api.errors import ApiError
from sandbox.current import allowed
from sandbox.current.errors import error_document
from sandbox.current.query import Collection, Query, decode_cursor, encode_cursor, read_query

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


def read(collection: Collection, *parameters: tuple[str, str]) -> Query:
    return read_query(collection, BASE, f"{BASE}/api/things?whatever", list(parameters))


@pytest.mark.parametrize(("collection", "default", "maximum"), COLLECTIONS)
def test_collections_have_a_default_and_a_maximum_page_size(collection: Collection, default: int, maximum: int) -> None:
    assert read(collection).page_size == default
    assert read(collection, ("page[size]", str(maximum))).page_size == maximum
    assert read(collection, ("page[size]", "1")).page_size == 1


@pytest.mark.parametrize(("collection", "default", "maximum"), COLLECTIONS)
@pytest.mark.parametrize("text", ["0", "-1", "ten", "", "1.5", "too large"])
def test_invalid_page_sizes_are_refused(collection: Collection, default: int, maximum: int, text: str) -> None:
    """A page size that is too large, too small or not a number is a 400."""
    size = str(maximum + 1) if text == "too large" else text
    with pytest.raises(ApiError) as refused:
        read(collection, ("page[size]", size))
    assert refused.value.status == 400
    assert refused.value.detail == f"Page size must be an integer between 1 and {maximum}."
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
            allowed.METRICS,
            "sort",
            "name",
            "'sort' is not a valid query parameter for this resource.",
            id="sort of metrics",
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
            id="doubly reversed sort",
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
def test_invalid_parameters_are_refused(collection: Collection, name: str, value: str, detail: str) -> None:
    """A parameter that the collection does not allow is a 400 that names the parameter."""
    with pytest.raises(ApiError) as refused:
        read(collection, (name, value))
    assert (refused.value.status, refused.value.detail) == (400, detail)
    assert refused.value.source == {"parameter": name}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("abc", id="not base64"),
        pytest.param("é", id="not ASCII"),
        pytest.param(base64.b64encode(b"hello").decode(), id="not JSON"),
        pytest.param(base64.b64encode(b'{"a":1}').decode(), id="not a list"),
        pytest.param(base64.b64encode(b"[1]").decode(), id="too short"),
        pytest.param("WzEsMl0%3D", id="encoded twice"),
    ],
)
def test_invalid_cursors_are_refused(text: str) -> None:
    """A cursor that the server did not make is refused with Klaviyo's message."""
    with pytest.raises(ApiError) as refused:
        decode_cursor(text)
    assert (refused.value.status, refused.value.code) == (400, "invalid")
    assert refused.value.detail == "Invalid cursor provided."
    assert refused.value.source == {"pointer": "/data/"}


@pytest.mark.parametrize("position", [[0, 0], ["", "id"], ['"\n🎁\x00', "x" * 5000], [2**62, 2**40]], ids=repr)
def test_cursors_round_trip(position: list[object]) -> None:
    assert decode_cursor(encode_cursor(position)) == position


def test_next_link_repeats_the_query() -> None:
    """The link to the next page has all parameters of the request and a new cursor."""
    parameters = [
        ("filter", 'contains(name,"a+b & c, 50%")'),
        ("sort", "-name"),
        ("page[size]", "3"),
        ("fields[flow]", "name"),
        ("page[cursor]", encode_cursor(["a", "b"])),
    ]
    link = urlsplit(read(allowed.FLOWS, *parameters).link(["c", "d"]))
    assert f"{link.scheme}://{link.netloc}{link.path}" == f"{BASE}/api/things"
    assert parse_qsl(link.query) == [*parameters[:-1], ("page[cursor]", encode_cursor(["c", "d"]))]


def test_errors_are_jsonapi_documents() -> None:
    """An error has all members that Klaviyo's errors have."""
    with pytest.raises(ApiError) as refused:
        read(allowed.EVENTS, ("sort", "x"))
    (error,) = json.loads(json.dumps(error_document(refused.value, "some-id")))["errors"]
    assert set(error) == {"id", "status", "code", "title", "detail", "source", "links", "meta"}
