"""Secrets in texts by others: known ones in every form, and what precedes the last @ of a URL."""

import base64

import pytest

from klaviyo_pg.redaction import redacted

SECRET = "p@55:w/o%r SECret99"


@pytest.mark.parametrize(
    ("text", "readable"),
    [
        pytest.param("failed to resolve host 'SECret99@db'", "failed to resolve host '***@db'", id="a piece"),
        pytest.param(f"password {SECRET} is wrong", "password *** is wrong", id="as it is"),
        pytest.param("p%4055%3Aw%2Fo%25r%20SECret99", "***", id="percent-encoded"),
        pytest.param("p%4055%3Aw%2Fo%25r+SECret99", "***", id="encoded as in a form"),
        pytest.param(base64.b64encode(SECRET.encode()).decode().rstrip("="), "***", id="base64"),
        pytest.param("GET https://ann:other@b@c.example/x", "GET https://***@c.example/x", id="an unknown URL"),
        pytest.param('role "ann" does not exist', 'role "ann" does not exist', id="nothing secret"),
    ],
)
def test_secrets_are_hidden(text: str, readable: str) -> None:
    """Short secrets are not looked for: they would hide ordinary words."""
    assert redacted(text, [SECRET, "ann"]) == readable
