"""Personal data, hashed or dropped."""

import json
from datetime import UTC, datetime
from hashlib import md5, sha256
from typing import Any

import polars as pl
import pytest

from klaviyo_pg.catalogue import Load, Personal, loads
from klaviyo_pg.klaviyo.rows import Exclusion, Reject
from transforms.membership import exclusions
from transforms.personal import Protection, protected, protected_rejects

SALT = "a salt of this test only"
HASH, DROP = Protection(False, SALT), Protection(True, SALT)
LOADS = [load for load in vars(loads).values() if isinstance(load, Load)] + list(loads.EVENTS.values())


def hashed(text: str) -> str:
    """The recipe, written out once more."""
    return sha256((SALT + text).encode()).hexdigest()[:32]


def frame(load: Load, **values: Any) -> pl.DataFrame:
    """One row; what is not named is null."""
    return pl.DataFrame([{**dict.fromkeys(load.schema), **values}], load.schema)


def stored(load: Load, protection: Protection, **values: Any) -> dict[str, Any]:
    """What becomes of a row."""
    return protected(frame(load, **values), load, protection).row(0, named=True)


def properties(document: Any, protection: Protection = HASH) -> Any:
    """What becomes of an event's properties."""
    text = document if isinstance(document, str) else json.dumps(document)
    return json.loads(stored(loads.EVENTS["events"], protection, properties=text)["properties"])


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.table.name)
@pytest.mark.parametrize("protection", [HASH, DROP], ids=["hash", "drop"])
def test_only_personal_columns_change(load: Load, protection: Protection) -> None:
    """A protected frame fits its load as before, and columns that tell nothing of people are as they were."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    samples = {pl.String(): "7", pl.Float64(): 1.5, pl.Boolean(): True, pl.Int64(): 3, pl.Datetime("us", "UTC"): at}
    given = frame(load, **{name: samples[dtype] for name, dtype in load.schema.items()})
    found = protected(given, load, protection)
    assert found.schema == load.schema
    same = [column.name for column in load.columns if column.personal is Personal.NO]
    assert found.select(same).equals(given.select(same))
    assert protected(given.clear(), load, protection).schema == load.schema


def test_a_person_hashed() -> None:
    """Address, names, street, postal code and phone are hashed, coordinates go, and the city stays."""
    person = {"email": "ada@example.com", "first_name": "Ada", "address1": "1 Main St", "zip": "02116"}
    found = stored(loads.MEMBERS, HASH, key="k", city="Boston", longitude=1.0, latitude=2.0, **person)
    assert {name: found[name] for name in person} == {name: hashed(text) for name, text in person.items()}
    assert (found["key"], found["city"], found["longitude"], found["latitude"]) == ("k", "Boston", None, None)
    assert found["last_name"] is None


def test_a_person_dropped() -> None:
    """Nothing of what is personal is left, not even a hash."""
    found = stored(loads.MEMBERS, DROP, key="k", email="ada@example.com", city="Boston", phone_number="+15550001")
    assert {name for name, value in found.items() if value} == {"key", "city"}


@pytest.mark.parametrize("protection", [HASH, DROP], ids=["hash", "drop"])
def test_exclusions_keep_their_keys_apart(protection: Protection) -> None:
    """The key is md5 of the hashed address in both modes; where addresses are stored that is still its recipe."""
    made = exclusions([Exclusion(address, "bounced", None) for address in ("a@b.c", "d@e.f")], "ACC")
    found = protected(made.frame, loads.MEMBER_EXCLUSIONS, protection)
    assert set(found["_sync_id"]) == {md5(hashed(text).encode()).hexdigest() for text in ("a@b.c", "d@e.f")}
    assert set(found["email"]) == ({None} if protection.drops else {hashed("a@b.c"), hashed("d@e.f")})


@pytest.mark.parametrize(
    ("name", "is_telling"),
    [
        pytest.param("Size", False, id="a word"),
        pytest.param("Order 123456", False, id="six digits"),
        pytest.param("friend ada@example.com", True, id="an address"),
        pytest.param("+1 (555) 000-12", True, id="a number to call"),
        pytest.param("٠١٢٣٤٥٦", True, id="digits of another script"),
    ],
)
def test_names_of_properties(name: str, is_telling: bool) -> None:
    """The name of a property stays, of a person as of an event, unless it is an address or a number itself."""
    key = hashed(name) if is_telling else name
    attribute = stored(loads.MEMBER_ATTRIBUTES, HASH, name=name, value="x")
    assert (attribute["name"], attribute["value"]) == (key, hashed("x"))
    dropped = stored(loads.MEMBER_ATTRIBUTES, DROP, name=name, value="x")
    assert (dropped["name"], dropped["value"]) == (None if is_telling else name, None)
    assert properties({"in": {name: True}}) == {"in": {key: True}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param({"a": ["b", {"c": "é"}]}, {"a": [hashed("b"), {"c": hashed("é")}]}, id="texts, at any depth"),
        pytest.param({"a": ["", None, True, 999_999, -3, 0.5]}, {"a": ["", None, True, 999_999, -3, 0.5]}, id="small"),
        pytest.param({"a": 15551234567}, {"a": hashed("15551234567")}, id="a number to call"),
        pytest.param({"a": -1000000}, {"a": hashed("-1000000")}, id="seven digits"),
        pytest.param('{"a": 42.35041, "b": 1e300}', {"a": hashed("42.35041"), "b": 1e300}, id="coordinates"),
        pytest.param({"$message": "M", "$flow": 7, "$event_id": "12345678:9"}, None, id="ids stay"),
        pytest.param({"a": {"$message": "M"}}, {"a": {"$message": hashed("M")}}, id="within they are no ids"),
        pytest.param({"$event_id": "+15551234567"}, {"$event_id": hashed("+15551234567")}, id="an id that is none"),
        pytest.param({"$message": ["a@b.c"]}, {"$message": [hashed("a@b.c")]}, id="nor is a list"),
        pytest.param(["a"], [hashed("a")], id="a list"),
        pytest.param("null", None, id="null"),
        pytest.param("[" * 2000 + "]" * 2000, hashed("[" * 2000 + "]" * 2000), id="too deep"),
        pytest.param(r'{"a": "\ud800"}', hashed(r'{"a": "\ud800"}'), id="half a character"),
    ],
)
def test_properties_hashed(given: Any, expected: Any) -> None:
    """Every text and every long number is hashed where it stands; the rest is as it was."""
    assert properties(given) == (given if expected is None and given != "null" else expected)


def test_numbers_that_stay_lose_no_digit() -> None:
    """They are written as they came."""
    found = stored(loads.EVENTS["events"], HASH, properties='{"a": 19.90, "b": 1e400}')
    assert found["properties"] == '{"a":19.90,"b":1E+400}'


def test_properties_dropped() -> None:
    """They are null; what was taken from them before stays."""
    found = stored(loads.EVENTS["events"], DROP, properties='{"a": 1}', value="3", campaign_key="c", email="a@b.c")
    assert {name: value for name, value in found.items() if value} == {"value": "3", "campaign_key": "c"}


@pytest.mark.parametrize(
    "raw", ['{"id": "X1", "email": "ada@example.com", "n": [15551234567]}', "ada@example.com, no JSON", "half \ud800 @"]
)
def test_rejects(raw: str) -> None:
    """A record that could not be stored tells no more than one that could, and is the same when it comes again."""
    reject = Reject(raw, "The address ada@example.com of +1 555 123-4567 is none.", hides=False)
    [found, again, other] = protected_rejects([reject, reject, reject._replace(raw="other")], HASH)
    [dropped] = protected_rejects([reject], DROP)
    assert found == again and found.raw != other.raw and not found.hides
    assert found.reason == dropped.reason == "The address … of … is none."
    for text in (found.raw, dropped.raw):
        assert "@" not in text and "1555" not in text
    assert not raw.startswith("{") or json.loads(found.raw)["id"] == "X1"
    assert protected_rejects([], HASH) == []


def test_the_salt_is_not_shown() -> None:
    """Not where a value is printed, as in an error."""
    assert SALT not in repr(HASH)
