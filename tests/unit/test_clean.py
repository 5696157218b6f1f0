"""What every frame goes through before it is stored."""

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
        pytest.param("\x00\x00a\x00", "a", 3, id="runs and ends"),
        pytest.param("\x00", None, 1, id="nothing is left"),
        pytest.param("", None, 0, id="blank"),
        pytest.param(" ", " ", 0, id="a space is not blank"),
        pytest.param("\\u0000", "\\u0000", 0, id="an escape has no meaning in text"),
        pytest.param(None, None, 0, id="null"),
    ],
)
def test_text_is_stored_without_nul(text: str | None, expected: str | None, count: int) -> None:
    """NUL characters are taken out and counted; what is empty then is null."""
    frame, found = cleaned(pl.DataFrame({"text": [text]}, {"text": pl.String()}))
    assert (frame["text"].to_list(), found) == ([expected], count)


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
def test_json_is_stored_without_escaped_nul(text: str | None, expected: str | None, count: int) -> None:
    """An escaped NUL is taken out of JSON and counted; what only looks like one stays."""
    frame, found = cleaned(pl.DataFrame({"json": [text]}, {"json": pl.String()}), JSON)
    assert (frame["json"].to_list(), found) == ([expected], count)


@given(st.recursive(st.text(st.sampled_from('\x00\\u0a"'), max_size=8), lambda inner: st.lists(inner, max_size=3)))
def test_json_means_the_same_but_for_nul(value: object) -> None:
    """Whatever backslashes stand around it, exactly the NUL characters go."""
    text = json.dumps(value)
    frame, count = cleaned(pl.DataFrame({"json": [text]}), JSON)
    characters = re.compile(r'"(?:[^"\\]|\\.)*"')
    before = "".join(json.loads(found) for found in characters.findall(text))
    after = "".join(json.loads(found) for found in characters.findall(frame["json"].item()))
    assert (after, count) == (before.replace("\x00", ""), before.count("\x00"))


def test_nul_is_counted_over_all_columns_and_rows() -> None:
    """Text and JSON count together, and rows without NUL stay as they are."""
    frame = pl.DataFrame(
        {"text": ["a\x00", "b", "\x00"], "json": ['"\\u0000\\u0000"', '"c"', None], "number": [1, 2, 3]}
    )
    made = cleaned(frame, JSON)
    assert made.nul_characters == 4
    assert made.frame.to_dict(as_series=False) == {
        "text": ["a", "b", None],
        "json": ['""', '"c"', None],
        "number": [1, 2, 3],
    }


def test_named_columns_keep_their_blanks() -> None:
    """Where an empty string is a value of its own, it stays."""
    frame, _ = cleaned(pl.DataFrame({"name": [""], "value": [""]}), blank_columns=frozenset({"name"}))
    assert frame.row(0) == ("", None)


def test_of_rows_with_one_key_the_last_stays() -> None:
    """The row that was read last wins, and the others keep their order."""
    frame = pl.DataFrame({"id": ["a", "b", "a", "c", "b"], "read": [1, 2, 3, 4, 5]})
    assert frame.pipe(last_by, "id").rows() == [("a", 3), ("c", 4), ("b", 5)]


@pytest.mark.parametrize("load", LOADS, ids=lambda load: f"{load.table.name}-{len(load.columns)}")
def test_conformed_frames_have_the_schema_of_their_load(load: Load) -> None:
    """What is missing is null, what is too much goes, and order and types are the load's."""
    frame = conformed(pl.DataFrame({"unheard_of": [1], "__synced_at": [2]}), load)
    assert dict(frame.schema) == load.schema
    assert frame.row(0) == (None,) * len(load.columns)
