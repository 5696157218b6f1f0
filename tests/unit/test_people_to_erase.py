"""Arguments of `klaviyo-pg erase` that name no one, which it refuses before it needs a warehouse."""

import sys
from argparse import Namespace

import pytest

from klaviyo_pg.cli.erase import _is_confirmed, _People, erase
from klaviyo_pg.errors import BadSettings
from tests.terminal import Terminal


@pytest.mark.parametrize(
    ("named", "message"),
    [
        pytest.param({"email": ["p1"]}, "--email: an argument is not an email address.", id="an ID as an address"),
        pytest.param({"email": [f"{'ä' * 1_000}@example.com"]}, "--email: an argument is not", id="a long address"),
        pytest.param({"email": ["a\0@example.com"]}, "--email: an argument is not", id="an address with a zero byte"),
        pytest.param({"email": ["\udcff@example.com"]}, "--email: an argument is not", id="an address in Latin-1"),
        pytest.param({"id": ["ann@example.com"]}, "--id: an argument is not the ID of a profile.", id="an address"),
    ],
)
def test_what_names_no_one_is_refused(named: dict[str, list[str]], message: str) -> None:
    """The error does not repeat it, because it can be part of an address."""
    with pytest.raises(BadSettings) as raised:
        erase(Namespace(**{"email": [], "id": [], "file": None, "yes": True, "integration": None} | named))
    assert str(raised.value).startswith(message)
    assert str(raised.value).endswith(" Nothing was erased.")
    assert not any(text in str(raised.value) for texts in named.values() for text in texts)


@pytest.mark.parametrize(
    ("typed", "is_confirmed"), [("y\n", True), ("YES\n", True), ("\n", False), ("no\n", False), ("", False)]
)
def test_people_are_erased_only_if_that_is_confirmed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, is_confirmed: bool
) -> None:
    """Ctrl-D, which types nothing, does not confirm it. The question has the number of profiles that are stored."""
    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    assert _is_confirmed("shop", _People(set(), {"p1"}), lambda: 0) is is_confirmed
    assert capsys.readouterr().out.startswith("Erase this person from all tables of shop (no stored profiles)?")
