"""Protection of the columns that the catalogue marks as personal. Joins still work: equal texts have equal hashes."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec
import polars as pl
import polars_hash  # noqa: F401  # registers the chash namespace

from klaviyo_pg.catalogue import Column, Load, Personal, bookkeeping
from klaviyo_pg.catalogue.personal import CURRENCIES, EVENT_ID, MESSAGE_ID
from klaviyo_pg.rows import Reject
from transforms.clean import last_by
from transforms.keys import md5
from transforms.property_names import is_usual

_DIGITS = 32  # hexadecimal, of a hash: 128 bits
_HASH = rf"^[0-9a-f]{{{_DIGITS}}}$"
_LONG = 7  # digits that make a number look like a phone number or a precise coordinate
_ONE_ADDRESS = r"^[^\s@]+@[^\s@]+$"
_AT = "@|\uff20|\ufe6b|%40"  # also full-width, small, and percent-encoded
_DATES = re.compile(
    r"\b(?:19|20)\d\d([-./ ]?)(?:0?[1-9]|1[0-2])[-./ ]?(?:0[1-9]|[12]\d|3[01]|[1-9])\b"
    r"|\b(?:0?[1-9]|[12]\d|3[01])[-./ ](?:0?[1-9]|[12]\d|3[01])[-./ ](?:19|20)?\d\d\b"
)
_find_number = re.compile(rf"(?:\d[\s().\-/]*){{{_LONG}}}").search
_find_address = re.compile(_AT).search
_is_address = re.compile(_ONE_ADDRESS).fullmatch
_WORD_WITH_ADDRESS = rf"\S*(?:{_AT})\S*"
_WORD_WITH_DATA = rf"{_WORD_WITH_ADDRESS}|\+?(?:\d[^\w,;]*){{{_LONG - 1},}}\d"  # in a sentence
_PHONE_NUMBER = r"\+\d[\d ().-]{6,}\d"
_QUOTATION = r"""(?s)(^|[\s(:])(?:'.*'|".*")"""
_CODE = r"^-?\d{1,6}$"
_MESSAGE_IDS = ("$message", "$flow")  # in the properties of an event: the source of its keys
_RELATED = (("relationships", "profile", "data", "id"), ("relationships", "metric", "data", "id"), ("person", "id"))
_CURRENCIES = sorted([*CURRENCIES, *map(str.lower, CURRENCIES)])
_is_event_id, _is_message_id = re.compile(EVENT_ID).fullmatch, re.compile(MESSAGE_ID).fullmatch
_DROPPED = frozenset({Personal.TEXT, Personal.ADDRESS, Personal.JSON})

_decode = msgspec.json.Decoder(float_hook=Decimal).decode  # keeps all digits of a number
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True)
class Protection:
    """The protection of personal data: hashing with a secret salt, or (`drops`) removal.

    `readable` are names of properties that stay, besides those that consist of usual words.
    """

    drops: bool
    salt: str = field(repr=False)
    readable: frozenset[str] = frozenset()

    def hashed(self, text: str) -> str:
        """Return the hash of a text, or the text if it is one."""
        if re.fullmatch(_HASH, text):
            return text
        return sha256((self.salt + text).encode()).hexdigest()[:_DIGITS]

    def checked(self, text: str) -> str:
        """Return a text as CHECKED stores it: hashed if it contains an address or a phone number."""
        return self.hashed(text) if _identifies(text) else text

    def keeps_name(self, name: str) -> bool:
        """Return whether the name of a property stays readable."""
        return name in self.readable or is_usual(name)


def protected(frame: pl.DataFrame, load: Load, protection: Protection) -> pl.DataFrame:
    """Protect the personal columns of a frame. The key of an address becomes the key of the protected address.

    Of several rows whose addresses differ in capitals, the last one stays.
    """
    kinds = {column: kind for column in load.columns if isinstance(kind := load.personal_of(column), Personal)}
    result = frame.with_columns(
        _protected(column, kind, protection).alias(column.name) for column, kind in kinds.items()
    )
    keys = [column.name for column, kind in kinds.items() if kind is Personal.KEY_OF_EMAIL]
    return last_by(result, *keys) if keys else result


def with_protected_ids(frame: pl.DataFrame, protection: Protection) -> pl.DataFrame:
    """Protect the IDs of events and of their messages and flows, before keys are derived from them."""
    return frame.with_columns(
        _hashed_unless(pl.col("id"), EVENT_ID, protection),
        _hashed_unless(pl.col("message"), MESSAGE_ID, protection),
        _hashed_unless(pl.col("flow"), MESSAGE_ID, protection),
    )


def with_protected_event_ids(frame: pl.DataFrame, protection: Protection, *names: str) -> pl.DataFrame:
    """Protect the IDs of events in some columns, before keys are derived from them."""
    return frame.with_columns(_hashed_unless(pl.col(name), EVENT_ID, protection) for name in names)


def protected_rejects(rejects: Sequence[Reject], protection: Protection) -> list[Reject]:
    """Protect records that could not be stored and may contain anything. Equal records stay equal."""
    if not rejects:
        return []
    frame = pl.DataFrame(
        [(reject.raw.encode("utf-8", "replace").decode(), reject.reason) for reject in rejects],
        {"raw": pl.String(), "reason": pl.String()},
        orient="row",
    )
    columns = (column for column in bookkeeping.REJECTS.columns if column.name in frame.columns)
    frame = frame.with_columns(
        _protected(column, column.personal, protection).alias(column.name)
        for column in columns
        if isinstance(column.personal, Personal)
    )
    return [
        reject._replace(raw=raw, reason=reason)
        for reject, (raw, reason) in zip(rejects, frame.select("raw", "reason").rows(), strict=True)
    ]


def hashed(text: pl.Expr, salt: str) -> pl.Expr:
    """Return the first 32 hexadecimal digits of SHA-256(salt || text). Nulls stay."""
    digest: pl.Expr = (pl.lit(salt) + text).chash.sha2_256()  # type: ignore[attr-defined]
    return digest.str.head(_DIGITS)


def _protected(column: Column, kind: Personal, protection: Protection) -> pl.Expr:
    value = pl.col(column.name)
    if kind is Personal.NUMBER or (protection.drops and kind in _DROPPED):
        return pl.lit(None, column.type.polars)
    match kind:
        case Personal.KEY_OF_EMAIL:
            return md5(_hashed_address(pl.col("email"), protection))
        case Personal.ADDRESS:
            return _hashed_address(value, protection)
        case Personal.TEXT:
            return _hashed_text(value, protection)
        case Personal.CHECKED:
            return _replaced(value, _is_identifying, protection.salt)
        case Personal.EVENT_ID:
            return _hashed_unless(value, EVENT_ID, protection)
        case Personal.MESSAGE_ID:
            return _hashed_unless(value, MESSAGE_ID, protection)
        case Personal.CODE:
            return _replaced(value, lambda texts: ~texts.str.contains(_CODE), protection.salt, protection.drops)
        case Personal.CURRENCY:
            return _replaced(value, _is_no_currency, protection.salt, protection.drops)
        case Personal.PROPERTY_NAME:
            return value.map_batches(lambda names: _names(names, protection), pl.String())
        case Personal.SENTENCE:
            return value.str.replace_all(_QUOTATION, "${1}…").str.replace_all(_WORD_WITH_DATA, "…")
        case Personal.JSON:
            return value.map_batches(lambda texts: _documents(texts, protection, _event_ids), pl.String())
        case Personal.RECORD if not protection.drops:
            return value.map_batches(lambda texts: _documents(texts, protection, _record_ids), pl.String())
    return hashed(value, protection.salt)


def shown_sentence(text: str) -> str:
    """Return a sentence as SENTENCE stores it: without addresses, long numbers and quotations."""
    return re.sub(_WORD_WITH_DATA, "…", re.sub(_QUOTATION, r"\1…", text))


def shown_name(text: str) -> str:
    """Return a name without words that contain an address, and without phone numbers that have a country code."""
    return re.sub(rf"{_WORD_WITH_ADDRESS}|{_PHONE_NUMBER}", "…", text)


def _hashed_address(address: pl.Expr, protection: Protection) -> pl.Expr:
    """Return the hash of an address in lower case: however it is written, it is the same address."""
    return hashed(address.str.to_lowercase(), protection.salt)


def _hashed_text(text: pl.Expr, protection: Protection) -> pl.Expr:
    """Return the hash of a text. One that is an address as a whole is hashed like an address."""
    is_address = text.str.contains(_ONE_ADDRESS)
    return hashed(pl.when(is_address).then(text.str.to_lowercase()).otherwise(text), protection.salt)


def _hashed_unless(value: pl.Expr, form: str, protection: Protection) -> pl.Expr:
    return _replaced(value, lambda texts: ~texts.str.contains(form), protection.salt)


def _replaced(value: pl.Expr, is_personal: Callable[[pl.Series], pl.Series], salt: str, drops: bool = False) -> pl.Expr:
    """Hash the texts that `is_personal` selects, or drop them. Most columns have none, and cost one search."""

    def replaced(texts: pl.Series) -> pl.Series:
        personal = is_personal(texts).fill_null(False)
        if not personal.any():
            return texts
        replacement = pl.lit(None, pl.String()) if drops else hashed(pl.col("text"), salt)
        chosen = pl.when(pl.col("is_personal")).then(replacement).otherwise(pl.col("text"))
        frame = pl.DataFrame({"text": texts, "is_personal": personal})
        return frame.select(chosen.alias(texts.name)).to_series()

    return value.map_batches(replaced, pl.String())


def _is_identifying(texts: pl.Series) -> pl.Series:
    """Select the texts with an address or a phone number. There are few different names of an account."""
    return texts.is_in([text for text in texts.unique() if text and _identifies(text)])


def _identifies(text: str) -> bool:
    """Return whether a text contains an address or a phone number. Dates and hashes do not count."""
    if _find_address(text):
        return True
    return bool(_find_number(text) and _find_number(_DATES.sub("x", text)) and not re.match(_HASH, text))


def _is_no_currency(texts: pl.Series) -> pl.Series:
    return ~texts.is_in(_CURRENCIES)


def _names(names: pl.Series, protection: Protection) -> pl.Series:
    """Protect the names of properties, of which a frame has few different ones."""
    different = names.unique().drop_nulls()
    unusual = {name for name in different if not protection.keeps_name(name)}
    if not unusual:
        return names
    replacement = {name: None if protection.drops else protection.hashed(name) for name in unusual}
    return names.replace_strict(
        different, [replacement.get(name, name) for name in different], default=None, return_dtype=pl.String()
    )


class _Hashes(dict[str, str]):
    """The hash of each text, computed once. The empty text identifies no person and stays.

    A text that is an address as a whole is hashed in lower case, as in columns.
    """

    def __init__(self, salt: str) -> None:
        super().__init__({"": ""})
        self._salted = sha256(salt.encode())

    def __missing__(self, text: str) -> str:
        self[text] = digest = self.as_written(text.lower() if _is_address(text) else text)
        return digest

    def as_written(self, text: str) -> str:
        """Return the hash of the name of a member or of an ID. Those that differ in capitals stay distinct."""
        salted = self._salted.copy()
        salted.update(text.encode())
        return salted.hexdigest()[:_DIGITS]


class _Names(dict[str, str]):
    """The names of members of objects: unchanged where they are usual, else hashed."""

    def __init__(self, hashes: _Hashes, protection: Protection) -> None:
        super().__init__()
        self._hashes, self._protection = hashes, protection

    def __missing__(self, name: str) -> str:
        self[name] = protected = name if self._protection.keeps_name(name) else self._hashes.as_written(name)
        return protected


Restore = Callable[[dict[str, Any], dict[str, Any], _Hashes], None]
"""Copies the IDs of a document into its protected version."""


def _documents(documents: pl.Series, protection: Protection, restore: Restore) -> pl.Series:
    """Hash the texts in JSON documents, except IDs."""
    hashes = _Hashes(protection.salt)
    names = _Names(hashes, protection)
    hidden = [None if text is None else _document(text, hashes, names, restore) for text in documents]
    return pl.Series(documents.name, hidden, pl.String())


def _document(text: str, hashes: _Hashes, names: _Names, restore: Restore) -> str:
    try:
        document = _decode(text)
        hidden = _hidden(document, hashes, names)
        if type(document) is dict:
            restore(document, hidden, hashes)
        return _encode(hidden).decode()
    except (msgspec.DecodeError, RecursionError):  # not JSON, or nested too deeply to decode
        return f'"{hashes[text]}"'


def _event_ids(document: dict[str, Any], hidden: dict[str, Any], hashes: _Hashes) -> None:
    """Restore the IDs that keys are made of. Those that are none have the hash that the key is made of."""
    for name in _MESSAGE_IDS:
        value = document.get(name)
        if _is_id(value, _is_message_id):
            hidden[name] = value
        elif type(value) is str:
            hidden[name] = hashes.as_written(value)


def _record_ids(record: dict[str, Any], hidden: dict[str, Any], hashes: _Hashes) -> None:
    """Restore the IDs of a rejected record, and of the person and the metric of an event."""
    _event_ids(record, hidden, hashes)
    if _is_id(record.get("id"), _is_event_id):
        hidden["id"] = record["id"]
    for path in _RELATED:
        *parents, name = path
        of_record, of_hidden = _member(record, parents), _member(hidden, parents)
        if of_record and of_hidden and _is_id(of_record.get(name), _is_message_id):
            of_hidden[name] = of_record[name]


def _member(document: Any, path: Sequence[str]) -> dict[str, Any] | None:
    for name in path:
        document = document.get(name) if type(document) is dict else None
    return document if type(document) is dict else None


def _is_id(value: Any, matches: Callable[[str], object]) -> bool:
    return type(value) in (int, str) and bool(matches(str(value)))


def _hidden(value: Any, hashes: _Hashes, names: _Names) -> Any:
    """Hash the texts and long numbers in a JSON value. Short numbers, booleans and nulls identify no person."""
    kind = type(value)
    if kind is str:
        return hashes[value]
    if kind is dict:
        return {names[name]: _hidden(each, hashes, names) for name, each in value.items()}
    if kind is list:
        return [_hidden(each, hashes, names) for each in value]
    if kind is int and abs(value) >= 10 ** (_LONG - 1):
        return hashes[str(value)]
    if kind is Decimal and len(value.as_tuple().digits) >= _LONG:
        return hashes[str(value)]
    return value
