"""The keys: every stored row hangs on them, so their values are written out here."""

import hashlib

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.keys import md5, row_key


def _only(expression: pl.Expr, text: str | None) -> str | None:
    found: str | None = pl.DataFrame({"text": [text]}, {"text": pl.String()}).select(expression).item()
    return found


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
def test_md5_is_that_of_the_utf_8_bytes(text: str | None, digest: str | None) -> None:
    """Digests do not change from version to version; null has none."""
    assert _only(md5(pl.col("text")), text) == digest


@pytest.mark.parametrize(
    ("row_id", "key"),
    [
        pytest.param("01ABC", "e81a840dd4b28501442adc7c64c62f0c", id="ascii"),
        pytest.param("Ünïcode:😀", "ec6966f6582cf00f96a8ca6a9df69e9b", id="not ascii, with a colon"),
        pytest.param(None, None, id="null"),
    ],
)
def test_row_key_names_source_account_and_row(row_id: str | None, key: str | None) -> None:
    """A row key is md5('Klaviyo:' || account || ':' || id), and null without an id."""
    assert _only(row_key("account-1", pl.col("text")), row_id) == key


@given(st.text(), st.text())
def test_keys_equal_those_of_another_implementation(integration_id: str, row_id: str) -> None:
    """The recipe in the docstring is the whole recipe, whatever stands in an id."""
    recipe = f"Klaviyo:{integration_id}:{row_id}"
    assert _only(row_key(integration_id, pl.col("text")), row_id) == hashlib.md5(recipe.encode()).hexdigest()
