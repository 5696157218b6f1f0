"""Hashing and dropping of personal data."""

import json
from datetime import UTC, datetime
from hashlib import md5, sha256
from typing import Any

import polars as pl
import pytest

from klaviyo_pg.catalogue import TABLES, Column, Harmless, Load, Personal, Table, loads
from klaviyo_pg.rows import Events, Exclusion, Reject
from transforms.events import Metrics, event_frames
from transforms.membership import exclusions
from transforms.personal import Protection, protected, protected_rejects

SALT = "a salt of this test only"
HASH, DROP = Protection(False, SALT), Protection(True, SALT)
LOADS = [load for load in vars(loads).values() if isinstance(load, Load)] + list(loads.EVENTS.values())


def hashed(text: str) -> str:
    """Compute a hash by the documented recipe."""
    return sha256((SALT + text).encode()).hexdigest()[:32]


def frame(load: Load, **values: Any) -> pl.DataFrame:
    """Return a frame of one row. Columns without a value are null."""
    return pl.DataFrame([{**dict.fromkeys(load.schema), **values}], load.schema)


def stored(load: Load, protection: Protection, **values: Any) -> dict[str, Any]:
    """Return a row as it is stored."""
    return protected(frame(load, **values), load, protection).row(0, named=True)


def properties(document: Any, protection: Protection = HASH) -> Any:
    """Return the properties of an event as they are stored."""
    text = document if isinstance(document, str) else json.dumps(document)
    return json.loads(stored(loads.EVENTS["events"], protection, properties=text)["properties"])


@pytest.mark.parametrize("load", LOADS, ids=lambda load: load.table.name)
@pytest.mark.parametrize("protection", [HASH, DROP], ids=["hash", "drop"])
def test_only_personal_columns_change(load: Load, protection: Protection) -> None:
    """The schema is unchanged, and so are all columns without personal data."""
    at = datetime(2026, 1, 2, tzinfo=UTC)
    samples = {pl.String(): "7", pl.Float64(): 1.5, pl.Boolean(): True, pl.Int64(): 3, pl.Datetime("us", "UTC"): at}
    samples[pl.Date()] = at.date()
    unprotected = frame(load, **{name: samples[dtype] for name, dtype in load.schema.items()})
    result = protected(unprotected, load, protection)
    assert result.schema == load.schema
    same = [column.name for column in load.columns if not isinstance(load.personal_of(column), Personal)]
    assert result.select(same).equals(unprotected.select(same))
    assert protected(unprotected.clear(), load, protection).schema == load.schema


COLUMNS = [(table, column) for table in TABLES for column in table.columns]


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=[f"{table.name}.{column.name}" for table, column in COLUMNS])
def test_every_text_column_is_declared(table: Table, column: Column) -> None:
    """A column of text says how it is protected, or why it needs no protection."""
    holds_text = column.type.polars == pl.String() and column.type.sql != "numeric"
    assert isinstance(column.personal, Personal | Harmless) or not holds_text


@pytest.mark.parametrize(
    ("text", "is_personal"),
    [
        pytest.param("Black Friday 2026-11-27", False, id="a date"),
        pytest.param("Offers of 27.11.2026, 20261127 and 11/27/26", False, id="other dates"),
        pytest.param("List 123456", False, id="six digits"),
        pytest.param("Europe/Copenhagen", False, id="a time zone"),
        pytest.param("from ada@example.com", True, id="an address"),
        pytest.param("ada%40example.com", True, id="percent-encoded"),
        pytest.param("ada\uff20example.com", True, id="full-width"),
        pytest.param("call (555) 123-45 67", True, id="a phone number"),
        pytest.param("2026-11-27 or 5551234567", True, id="a date and a phone number"),
        pytest.param("٠١٢٣٤٥٦", True, id="digits of another script"),
    ],
)
@pytest.mark.parametrize("protection", [HASH, DROP], ids=["hash", "drop"])
def test_texts_of_the_account_are_checked(text: str, is_personal: bool, protection: Protection) -> None:
    """Names of metrics, campaigns and lists stay readable unless they contain an address or a phone number."""
    name = stored(loads.LISTS, protection, name=text)["name"]
    assert name == (hashed(text) if is_personal else text)
    assert stored(loads.LISTS, protection, name=name)["name"] == name, "a hash stays as it is"
    assert protection.checked(text) == protection.checked(name) == name


@pytest.mark.parametrize(
    ("load", "column", "kept", "personal"),
    [
        pytest.param(
            loads.EVENTS["events"], "value_currency", ["USD", "eur"], ["Ann", "ANN", "Usd", "US"], id="currency"
        ),
        pytest.param(loads.MEMBERS, "source", ["-6", "12"], ["Ann", "+15551234567", "5551234567", "6 "], id="source"),
        pytest.param(loads.FLOW_CAMPAIGNS, "subject", [], ["Ann, your order"], id="subject that a person received"),
        pytest.param(loads.FLOW_CAMPAIGNS, "name", [], ["Ann, your order"], id="name in an event"),
        pytest.param(loads.CAMPAIGNS, "subject", ["{{ first_name }}, your order"], [], id="subject of the account"),
        pytest.param(loads.MEMBER_CONSENTS, "method_detail", [], ["Ann's list.csv"], id="method"),
    ],
)
def test_only_values_that_name_no_one_stay(load: Load, column: str, kept: list[str], personal: list[str]) -> None:
    for text in kept:
        assert stored(load, HASH, **{column: text})[column] == stored(load, DROP, **{column: text})[column] == text
    for text in personal:
        assert stored(load, HASH, **{column: text})[column] == hashed(text)
        assert stored(load, DROP, **{column: text})[column] is None


@pytest.mark.parametrize(
    ("event_id", "is_id"),
    [
        pytest.param("3qvdbYg3abc", True, id="an id"),
        pytest.param("PRYYsbQGpXz", True, id="an id without digits"),
        pytest.param("e45ab680-5bb1-11e9-8001-a0dcc2d8d5f1", True, id="a uuid"),
        pytest.param("Ann", False, id="a name"),
        pytest.param("AnnMariaSmith", False, id="names"),
        pytest.param("ann", False, id="a small name"),
        pytest.param("ANN", False, id="a large name"),
        pytest.param("Ann Smith 12", False, id="words"),
        pytest.param("ann-smith-12", False, id="hyphens"),
        pytest.param("15551234567", False, id="a phone number"),
        pytest.param("+15551234567", False, id="an international phone number"),
        pytest.param("ann12@example.com", False, id="an address"),
    ],
)
@pytest.mark.parametrize("protection", [HASH, DROP], ids=["hash", "drop"])
def test_ids_of_events_that_name_someone_are_hashed(event_id: str, is_id: bool, protection: Protection) -> None:
    """Keys follow their recipe over the protected ID in every table, and events still join to their campaign."""
    properties = json.dumps({"$message": "Ann Smith", "$flow": "5551234567"})
    values: dict[str, Any] = {
        "id": event_id,
        "at": 5,
        "profile_id": "P",
        "metric_id": "m",
        "message": "Ann Smith",
        "flow": "5551234567",
        "properties": properties.encode(),
        "list_name": "L",
    }
    columns: list[list[Any]] = [[values.get(name)] for name in Events._fields]
    metrics = Metrics({"m": "Subscribed to List"}, {})
    made = event_frames(Events(*columns), [0], metrics, "one", protection)
    event = protected(made.tables["events"], loads.EVENTS["events"], protection).row(0, named=True)
    expected = event_id if is_id else hashed(event_id)
    assert (event["id"], event["key"]) == (expected, md5(f"Klaviyo:one:{expected}".encode()).hexdigest())
    change = protected(made.subscription_changes, loads.SUBSCRIPTION_CHANGES, protection).row(0, named=True)
    assert (change["id"], change["list_name"]) == (expected, hashed("L"))
    campaign = protected(made.flow_campaigns, loads.FLOW_CAMPAIGNS, protection).row(0, named=True)
    assert campaign["id"] == hashed("Ann Smith")
    assert campaign["campaign_key"] == event["campaign_key"] == md5(hashed("Ann Smith").encode()).hexdigest()
    assert campaign["automation_key"] == event["automation_key"] == md5(hashed("5551234567").encode()).hexdigest()
    if not protection.drops:
        assert json.loads(event["properties"]) == {"$message": hashed("Ann Smith"), "$flow": hashed("5551234567")}


def test_a_setting_keeps_further_names_of_properties_readable() -> None:
    chosen = Protection(False, SALT, frozenset({"Größe"}))
    assert stored(loads.MEMBER_ATTRIBUTES, chosen, name="Größe")["name"] == "Größe"
    assert stored(loads.MEMBER_ATTRIBUTES, HASH, name="Größe")["name"] == hashed("Größe")
    document = stored(loads.EVENTS["events"], chosen, properties='{"Größe": 1, "Ann": 2}')["properties"]
    assert json.loads(document) == {"Größe": 1, hashed("Ann"): 2}


def test_a_person_is_hashed() -> None:
    """Address, names, street, postal code and phone are hashed, coordinates are dropped, and the city stays."""
    person = {"email": "ada@example.com", "first_name": "Ada", "address1": "1 Main St", "zip": "02116"}
    result = stored(loads.MEMBERS, HASH, key="k", city="Boston", longitude=1.0, latitude=2.0, **person)
    assert {name: result[name] for name in person} == {name: hashed(text) for name, text in person.items()}
    assert (result["key"], result["city"], result["longitude"], result["latitude"]) == ("k", "Boston", None, None)
    assert result["last_name"] is None


@pytest.mark.parametrize(
    ("load", "column"),
    [(loads.MEMBERS, "email"), (loads.MEMBER_ATTRIBUTES, "value"), (loads.MEMBER_CONSENTS, "method_detail")],
    ids=lambda each: each if isinstance(each, str) else each.table.name,
)
def test_an_address_has_the_same_hash_however_it_is_written(load: Load, column: str) -> None:
    """In columns, at any depth of documents, and in rejected records. In a longer text, capitals count."""
    address = "Ada.\u00c9@Example.com"
    expected = hashed(address.lower())
    assert stored(load, HASH, **{column: address})[column] == expected
    assert properties({"a": address, "b": [address, f"to {address}"]}) == {
        "a": expected,
        "b": [expected, hashed(f"to {address}")],
    }
    records = [Reject(json.dumps({"email": address}), "bad"), Reject(address, "not JSON")]
    assert [json.loads(each.raw) for each in protected_rejects(records, HASH)] == [{"email": expected}, expected]


@pytest.mark.parametrize("address", ["Ada@Example.com", "ada@example.com"])
def test_names_and_ids_that_are_addresses_are_hashed_as_they_are_written(address: str) -> None:
    """Two names of one document stay distinct, and keys follow their recipe over the stored document."""
    assert stored(loads.MEMBER_ATTRIBUTES, HASH, name=address)["name"] == hashed(address)
    assert properties({address: 1, "$message": address, "$flow": address}) == {
        hashed(address): 1,
        "$message": hashed(address),
        "$flow": hashed(address),
    }


def test_a_person_is_dropped() -> None:
    """Nothing personal is left, not even a hash."""
    result = stored(loads.MEMBERS, DROP, key="k", email="ada@example.com", city="Boston", phone_number="+15550001")
    assert {name for name, value in result.items() if value} == {"key", "city"}


@pytest.mark.parametrize("protection", [HASH, DROP], ids=["hash", "drop"])
def test_exclusions_keep_distinct_keys(protection: Protection) -> None:
    """In both modes, the key is the MD5 of the hashed address, which follows the recipe of the key."""
    raw = exclusions([Exclusion(address, "bounced", None) for address in ("a@b.c", "d@e.f")], "ACC")
    result = protected(raw.frame, loads.MEMBER_EXCLUSIONS, protection)
    assert set(result["_sync_id"]) == {md5(hashed(text).encode()).hexdigest() for text in ("a@b.c", "d@e.f")}
    assert set(result["email"]) == ({None} if protection.drops else {hashed("a@b.c"), hashed("d@e.f")})


@pytest.mark.parametrize(
    ("name", "is_identifying"),
    [
        pytest.param("Size", False, id="a word"),
        pytest.param("Order 123456", False, id="six digits"),
        pytest.param("friend ada@example.com", True, id="an address"),
        pytest.param("+1 (555) 000-12", True, id="a phone number"),
        pytest.param("٠١٢٣٤٥٦", True, id="digits of another script"),
        pytest.param("ada%40example.com", True, id="a percent-encoded address"),
        pytest.param("info%40shop.com", True, id="an address of usual words"),
        pytest.param("ada\uff20example.com", True, id="a full-width address"),
        pytest.param("Ada Lovelace", True, id="a name"),
        pytest.param("AdaLovelace", True, id="a name in one word"),
        pytest.param("7 Elm Street", True, id="a street"),
        pytest.param("$attributed_event_id", False, id="a name of Klaviyo"),
        pytest.param("CompareAtPrice", False, id="several words"),
        pytest.param("Shipping Address Line 2", False, id="words and a number"),
    ],
)
def test_identifying_names_of_properties_are_protected(name: str, is_identifying: bool) -> None:
    """The name of a person's or an event's property stays if it consists of usual words."""
    key = hashed(name) if is_identifying else name
    attribute = stored(loads.MEMBER_ATTRIBUTES, HASH, name=name, value="x")
    assert (attribute["name"], attribute["value"]) == (key, hashed("x"))
    dropped = stored(loads.MEMBER_ATTRIBUTES, DROP, name=name, value="x")
    assert (dropped["name"], dropped["value"]) == (None if is_identifying else name, None)
    assert properties({"in": {name: True}}) == {"in": {key: True}}


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param({"a": ["b", {"c": "é"}]}, {"a": [hashed("b"), {"c": hashed("é")}]}, id="texts at any depth"),
        pytest.param({"a": ["", None, True, 999_999, -3, 0.5]}, {"a": ["", None, True, 999_999, -3, 0.5]}, id="small"),
        pytest.param({"a": 15551234567}, {"a": hashed("15551234567")}, id="a phone number"),
        pytest.param({"a": -1000000}, {"a": hashed("-1000000")}, id="seven digits"),
        pytest.param('{"a": 42.35041, "b": 1e300}', {"a": hashed("42.35041"), "b": 1e300}, id="coordinates"),
        pytest.param({"$message": "M", "$flow": 7}, None, id="ids of a message and a flow"),
        pytest.param({"$event_id": "12345678:9"}, {"$event_id": hashed("12345678:9")}, id="an id that anyone can set"),
        pytest.param({"$flow": 15551234567}, {"$flow": hashed("15551234567")}, id="a phone number as a flow"),
        pytest.param({"$message": "Ann Smith"}, {"$message": hashed("Ann Smith")}, id="a name as a message"),
        pytest.param({"a": {"$message": "M"}}, {"a": {"$message": hashed("M")}}, id="ids below the first level"),
        pytest.param(
            {"$event_id": "+15551234567"}, {"$event_id": hashed("+15551234567")}, id="a phone number as an id"
        ),
        pytest.param({"$message": ["a@b.c"]}, {"$message": [hashed("a@b.c")]}, id="a list as an id"),
        pytest.param(["a"], [hashed("a")], id="a list"),
        pytest.param("null", None, id="null"),
        pytest.param("[" * 2000 + "]" * 2000, hashed("[" * 2000 + "]" * 2000), id="too deep"),
        pytest.param(r'{"a": "\ud800"}', hashed(r'{"a": "\ud800"}'), id="half a character"),
    ],
)
def test_properties_are_hashed(document: Any, expected: Any) -> None:
    """Every text and every long number is hashed. Everything else is unchanged."""
    assert properties(document) == (document if expected is None and document != "null" else expected)


def test_numbers_that_stay_keep_their_digits() -> None:
    result = stored(loads.EVENTS["events"], HASH, properties='{"a": 19.90, "b": 1e400}')
    assert result["properties"] == '{"a":19.90,"b":1E+400}'


def test_properties_are_dropped() -> None:
    """Values that were extracted from the properties stay."""
    result = stored(loads.EVENTS["events"], DROP, properties='{"a": 1}', value="3", campaign_key="c", email="a@b.c")
    assert {name: value for name, value in result.items() if value} == {"value": "3", "campaign_key": "c"}


@pytest.mark.parametrize(
    "raw",
    ['{"id": "X1", "email": "ada@example.com", "n": [15551234567]}', "ada@example.com, not JSON", "half \ud800 @"],
)
def test_rejects_are_protected(raw: str) -> None:
    """A rejected record contains no more personal data than a stored one, and equal records stay equal."""
    reject = Reject(raw, "The address ada@example.com of +1 555 123-4567 is invalid.", hides=False)
    [first, repeated, other] = protected_rejects([reject, reject, reject._replace(raw="other")], HASH)
    [dropped] = protected_rejects([reject], DROP)
    assert first == repeated and first.raw != other.raw and not first.hides
    assert first.reason == dropped.reason == "The address … of … is invalid."
    for text in (first.raw, dropped.raw):
        assert "@" not in text and "1555" not in text
    assert not raw.startswith("{") or json.loads(first.raw)["id"] == "X1"
    assert protected_rejects([], HASH) == []


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        pytest.param("Invalid isoformat string: '7 Elm Street'", "Invalid isoformat string: …", id="quoted"),
        pytest.param('Invalid string: "Ann\'s"', "Invalid string: …", id="quoted twice"),
        pytest.param("Expected `int`, got `str` - at `$.id`", "Expected `int`, got `str` - at `$.id`", id="of types"),
        pytest.param("The record can't be read, and isn't.", "The record can't be read, and isn't.", id="apostrophes"),
    ],
)
def test_reasons_quote_no_values(reason: str, expected: str) -> None:
    assert protected_rejects([Reject("{}", reason)], HASH)[0].reason == expected


def test_a_rejected_event_keeps_the_ids_that_say_what_it_is_about() -> None:
    """Its own ID, the person's and the metric's stay where they are IDs."""
    related = {name: {"data": {"id": f"01{name}"}} for name in ("profile", "metric", "other")}
    raw = json.dumps({"id": "3qvdbYg3", "relationships": related, "person": {"id": "01P", "name": {"id": "01X"}}})
    [reject] = protected_rejects([Reject(raw, "bad")], HASH)
    related["other"]["data"]["id"] = hashed("01other")
    assert json.loads(reject.raw) == {
        "id": "3qvdbYg3",
        "relationships": related,
        "person": {"id": "01P", "name": {"id": hashed("01X")}},
    }


def test_the_salt_is_not_in_a_repr() -> None:
    """Otherwise an error could print it."""
    assert SALT not in repr(HASH)
