"""The recipes of the keys. Every stored row depends on them, so the tests contain literal values."""

import hashlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.keys import md5, row_key


def _only(expression: pl.Expr, text: str | None) -> str | None:
    value: str | None = pl.DataFrame({"text": [text]}, {"text": pl.String()}).select(expression).item()
    return value


@pytest.mark.parametrize(
    ("text", "digest"),
    [
        pytest.param("abc", "900150983cd24fb0d6963f7d28e17f72", id="ascii"),
        pytest.param("", "d41d8cd98f00b204e9800998ecf8427e", id="empty"),
        pytest.param("é", "66ddcd97cfdeabb2f6fb8a999b4bc76f", id="two bytes"),
        pytest.param("😀", "2a02eac39d716a70ecf37579185927b6", id="four bytes"),
        pytest.param(None, None, id="null"),
    ],
)
def test_md5_is_computed_from_the_utf_8_bytes(text: str | None, digest: str | None) -> None:
    """A digest never changes between versions. Null stays null."""
    assert _only(md5(pl.col("text")), text) == digest


@pytest.mark.parametrize(
    ("row_id", "key"),
    [
        pytest.param("01ABC", "e81a840dd4b28501442adc7c64c62f0c", id="ascii"),
        pytest.param("Ünïcode:😀", "ec6966f6582cf00f96a8ca6a9df69e9b", id="not ascii, with a colon"),
        pytest.param(None, None, id="null"),
    ],
)
def test_row_key_combines_source_account_and_row(row_id: str | None, key: str | None) -> None:
    """The key is md5('Klaviyo:' || account || ':' || id), and null for a null id."""
    assert _only(row_key("account-1", pl.col("text")), row_id) == key


@given(st.text(), st.text())
def test_keys_match_another_implementation(integration_id: str, row_id: str) -> None:
    """The recipe in the docstring is complete, whatever an id contains."""
    recipe = f"Klaviyo:{integration_id}:{row_id}"
    assert _only(row_key(integration_id, pl.col("text")), row_id) == hashlib.md5(recipe.encode()).hexdigest()
