"""Decoding of pages: a bad row never affects the others."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaviyo_pg.errors import BadAnswer
from klaviyo_pg.klaviyo.current import resources
from klaviyo_pg.klaviyo.documents import DocumentDecoder
from klaviyo_pg.klaviyo.properties import text

PROFILES = DocumentDecoder(resources.ProfileDocument, data=resources.Profile)
EVENTS = DocumentDecoder(resources.EventDocument, data=resources.Event, included=resources.Profile)
GOOD = b'{"id":"good","attributes":{"email":"a@example.com","properties":{"n":1}}}'
GOOD_EVENT = b'{"id":"good","attributes":{"timestamp":5,"event_properties":{"$value":12.5}}}'


def page(*rows: bytes) -> bytes:
    return b'{"data":[' + b",".join(rows) + b'],"links":{"next":"https://x/next"}}'


BAD_ROWS = [
    pytest.param(b'{"attributes":{}}', id="no id"),
    pytest.param(b'{"id":"","attributes":{}}', id="empty id"),
    pytest.param(b'{"id":null,"attributes":{}}', id="null id"),
    pytest.param(b'{"id":5,"attributes":{}}', id="id is a number"),
    pytest.param(b'{"id":"x"}', id="no attributes"),
    pytest.param(b'{"id":"x","attributes":null}', id="null attributes"),
    pytest.param(b'{"id":"x","attributes":{"created":"yesterday"}}', id="unreadable time"),
    pytest.param(b'{"id":"x","attributes":{"created":"10000-01-01T00:00:00Z"}}', id="time beyond 9999"),
    pytest.param(b'{"id":"x","attributes":{"created":"0000-01-01T00:00:00Z"}}', id="time before the year 1"),
    pytest.param(b'{"id":"x","attributes":{"email":"\\ud800"}}', id="lone surrogate"),
    pytest.param(b'{"id":"x","attributes":{"email":"\xff"}}', id="not UTF-8"),
    pytest.param(b'{"id":"x","attributes":{"properties":[1]}}', id="properties are a list"),
    pytest.param(b"[]", id="a list"),
    pytest.param(b"null", id="null"),
    pytest.param(b'"x"', id="text"),
]


@pytest.mark.parametrize("row", BAD_ROWS)
def test_a_bad_row_is_rejected_alone(row: bytes) -> None:
    """The rows before and after it are read, and so is the link. The reject has a reason."""
    document, rejects = PROFILES.decode(page(GOOD, row, GOOD))
    assert [row.id for row in document.data] == ["good", "good"]
    assert document.links is not None and document.links.next == "https://x/next"
    (reject,) = rejects
    assert reject.reason
    assert reject.raw == row.decode("utf-8", "backslashreplace")


@pytest.mark.parametrize(
    ("value", "expected", "replaced"),
    [
        pytest.param(rb'"\udc00 b"', "\N{REPLACEMENT CHARACTER} b", 1, id="lone surrogate"),
        pytest.param(
            rb'"\ud83d\ud83d\ude00"', "\N{REPLACEMENT CHARACTER}\N{GRINNING FACE}", 1, id="half of a pair, and a pair"
        ),
        pytest.param(b'"\xff\xfe"', "\N{REPLACEMENT CHARACTER}" * 2, 2, id="not UTF-8"),
        pytest.param(b"NaN", "NaN", 1, id="not a JSON number"),
        pytest.param(b"01", "01", 1, id="a leading zero"),
        pytest.param(b'"a\tb\\x\x01"', "a\tb\\x\x01", 0, id="control characters and an unknown escape"),
        pytest.param(b"[" * 600 + b"]" * 600, "[" * 497 + "null" + "]" * 497, 1, id="nested too deeply"),
        pytest.param(b'[\xff,["id"],{"id":"\xff"}]', '["�",["id"],{"id":"�"}]', 2, id="what looks like an identity"),
    ],
)
def test_a_row_is_kept_although_a_value_cannot_be(value: bytes, expected: str, replaced: int) -> None:
    """The value is replaced, and the original of the row is kept if anything of it was lost."""
    row = b'{"id":"x","attributes":{"properties":{"other":"\xc3\xbc\xef\xbf\xbd","a":' + value + b"}}}"
    broken = row.replace(b'"id":"x"', b'"id":"x","odd":"\xff"') if value.startswith(b"[[") else row
    document, rejects = PROFILES.decode(page(GOOD, broken, GOOD))
    properties = document.data[1].attributes.properties
    assert properties is not None
    assert (text(properties["other"]), text(properties["a"])) == ("ü\N{REPLACEMENT CHARACTER}", expected)
    assert sum(each.replaced for each in rejects) == replaced + (broken is not row)


@pytest.mark.parametrize(
    "attributes",
    [
        pytest.param(b'{"timestamp":253402300800}', id="year 10000"),
        pytest.param(b'{"timestamp":-62135596801}', id="before the year 1"),
        pytest.param(b'{"timestamp":"2026-01-01"}', id="text"),
        pytest.param(b'{"timestamp":1.5}', id="half a second"),
        pytest.param(b'{"timestamp":null}', id="null"),
        pytest.param(b"{}", id="none"),
    ],
)
def test_an_event_without_a_usable_time_is_rejected(attributes: bytes) -> None:
    """The time must be an integer in the years 1 to 9999."""
    document, rejects = EVENTS.decode(page(GOOD_EVENT, b'{"id":"x","attributes":' + attributes + b"}"))
    assert [event.id for event in document.data] == ["good"]
    assert len(rejects) == 1


@pytest.mark.parametrize("seconds", [-62_135_596_800, 253_402_300_799])
def test_events_of_the_first_and_last_year_are_read(seconds: int) -> None:
    document, rejects = EVENTS.decode(page(b'{"id":"x","attributes":{"timestamp":%d}}' % seconds))
    assert document.data[0].attributes.timestamp == seconds and not rejects


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"<html>maintenance</html>", id="HTML"),
        pytest.param(b'{"data":[', id="cut off"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"data"', id="text"),
        pytest.param(b"{}", id="no data"),
        pytest.param(b'{"data":null}', id="null data"),
        pytest.param(b'{"data":{"id":"x"}}', id="one row instead of a list"),
        pytest.param(b'{"data":[],"links":{"next":5}}', id="a link that is a number"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param("{}".encode("utf-16"), id="UTF-16"),
    ],
)
def test_a_response_that_is_not_a_page_raises_an_error(body: bytes) -> None:
    """The error names the setting to check and contains nothing of the response."""
    with pytest.raises(BadAnswer, match=r"^The response.*\. Check KLAVIYO_BASE_URL\.$"):
        PROFILES.decode(body)


def test_a_byte_order_mark_is_ignored() -> None:
    """Some proxies add one."""
    document, rejects = PROFILES.decode(b"\xef\xbb\xbf" + page(GOOD))
    assert len(document.data) == 1 and not rejects


@given(st.lists(st.booleans(), max_size=12))
def test_each_row_is_read_or_rejected(fits: list[bool]) -> None:
    """The order of the rows stays the same, whatever the mixture."""
    rows: list[dict[str, Any]] = [{"id": str(at) if fit else at, "attributes": {}} for at, fit in enumerate(fits)]
    document, rejects = PROFILES.decode(json.dumps({"data": rows}).encode())
    assert [row.id for row in document.data] == [str(at) for at, fit in enumerate(fits) if fit]
    assert [json.loads(reject.raw)["id"] for reject in rejects] == [at for at, fit in enumerate(fits) if not fit]
