"""The steps that prepare every frame for Postgres."""

import json
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from klaviyo_pg.catalogue import Load, loads
from transforms.clean import cleaned, conformed, last_by

JSON = frozenset({"json"})
LOADS = [load for load in vars(loads).values() if isinstance(load, Load)]


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        pytest.param("plain", "plain", 0, id="nothing to do"),
        pytest.param("a\x00b", "ab", 1, id="one"),
        pytest.param("\x00\x00a\x00", "a", 3, id="several, at both ends"),
        pytest.param("\x00", None, 1, id="nothing is left"),
        pytest.param("", None, 0, id="blank"),
        pytest.param(" ", " ", 0, id="a space is not blank"),
        pytest.param("\\u0000", "\\u0000", 0, id="an escape has no meaning in text"),
        pytest.param(None, None, 0, id="null"),
    ],
)
def test_nul_is_removed_from_text(text: str | None, expected: str | None, count: int) -> None:
    """Removed characters are counted. Text that is empty afterwards becomes null."""
    frame, removed = cleaned(pl.DataFrame({"text": [text]}, {"text": pl.String()}))
    assert (frame["text"].to_list(), removed) == ([expected], count)


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        pytest.param(r'{"a":"x\u0000y"}', r'{"a":"xy"}', 1, id="one"),
        pytest.param(r'{"a":"\u0000\u0000\u0000"}', r'{"a":""}', 3, id="run"),
        pytest.param(r'{"a\u0000":1}', r'{"a":1}', 1, id="in a name"),
        pytest.param(r'{"a":"\\u0000"}', r'{"a":"\\u0000"}', 0, id="a backslash and u0000"),
        pytest.param(r'{"a":"\\\u0000"}', r'{"a":"\\"}', 1, id="a backslash and NUL"),
        pytest.param(r'{"a":"\\\\u0000"}', r'{"a":"\\\\u0000"}', 0, id="two backslashes and u0000"),
        pytest.param(r'{"a":"\u0000\\u0000\u0000"}', r'{"a":"\\u0000"}', 2, id="mixed"),
        pytest.param("", "", 0, id="blank stays"),
        pytest.param(None, None, 0, id="null"),
    ],
)
def test_escaped_nul_is_removed_from_json(text: str | None, expected: str | None, count: int) -> None:
    """Removed escapes are counted. Text that only looks like an escaped NUL stays."""
    frame, removed = cleaned(pl.DataFrame({"json": [text]}, {"json": pl.String()}), JSON)
    assert (frame["json"].to_list(), removed) == ([expected], count)


@given(st.recursive(st.text(st.sampled_from('\x00\\u0a"'), max_size=8), lambda inner: st.lists(inner, max_size=3)))
def test_json_keeps_its_meaning_except_for_nul(value: object) -> None:
    """Exactly the NUL characters are removed, whatever backslashes surround them."""
    text = json.dumps(value)
    frame, count = cleaned(pl.DataFrame({"json": [text]}), JSON)
    characters = re.compile(r'"(?:[^"\\]|\\.)*"')
    before = "".join(json.loads(string) for string in characters.findall(text))
    after = "".join(json.loads(string) for string in characters.findall(frame["json"].item()))
    assert (after, count) == (before.replace("\x00", ""), before.count("\x00"))


def test_nul_is_counted_over_all_columns_and_rows() -> None:
    """The count includes text and JSON. Rows without NUL are unchanged."""
    frame = pl.DataFrame(
        {"text": ["a\x00", "b", "\x00"], "json": ['"\\u0000\\u0000"', '"c"', None], "number": [1, 2, 3]}
    )
    result = cleaned(frame, JSON)
    assert result.nul_characters == 4
    assert result.frame.to_dict(as_series=False) == {
        "text": ["a", "b", None],
        "json": ['""', '"c"', None],
        "number": [1, 2, 3],
    }


def test_blank_columns_keep_empty_strings() -> None:
    """In these columns, an empty string is a value."""
    frame, _ = cleaned(pl.DataFrame({"name": [""], "value": [""]}), blank_columns=frozenset({"name"}))
    assert frame.row(0) == ("", None)


def test_of_rows_with_the_same_key_the_last_stays() -> None:
    """The remaining rows keep their order."""
    frame = pl.DataFrame({"id": ["a", "b", "a", "c", "b"], "read": [1, 2, 3, 4, 5]})
    assert frame.pipe(last_by, "id").rows() == [("a", 3), ("c", 4), ("b", 5)]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: f"{load.table.name}-{len(load.columns)}")
def test_conformed_frames_have_the_schema_of_their_load(load: Load) -> None:
    """Missing columns are null, other columns are dropped, and order and types are those of the load."""
    frame = conformed(pl.DataFrame({"unknown": [1], "__synced_at": [2]}), load)
    assert dict(frame.schema) == load.schema
    assert frame.row(0) == (None,) * len(load.columns)
