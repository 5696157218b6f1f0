"""Protection of the columns that the catalogue marks as personal. Joins still work: equal texts have equal hashes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec
import polars as pl
import polars_hash  # noqa: F401  # registers the chash namespace

from klaviyo_pg.catalogue import Column, Load, Personal, bookkeeping
from klaviyo_pg.rows import Reject
from transforms.keys import md5

_DIGITS = 32  # hexadecimal, of a hash: 128 bits
_LONG = 7  # digits that make a number look like a phone number or a precise coordinate
_IDENTIFYING = rf"@|(?:\d\D*){{{_LONG}}}"  # in a name: an address or a phone number
_IDENTIFYING_WORD = rf"\S*@\S*|\+?(?:\d[^\w,;]*){{{_LONG - 1},}}\d"  # in a sentence
_IDS = ("$message", "$flow", "$event_id")  # of a campaign, a flow and an event: the first two are the source of keys
_NO_ID = re.compile(r"^\+|@")
_DROPPED_AS_TEXT = frozenset({Personal.TEXT, Personal.JSON, Personal.NUMBER})

_decode = msgspec.json.Decoder(float_hook=Decimal).decode  # keeps all digits of a number
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True)
class Protection:
    """The protection of personal data: hashing with a secret salt, or (`drops`) removal."""

    drops: bool
    salt: str = field(repr=False)


def protected(frame: pl.DataFrame, load: Load, protection: Protection) -> pl.DataFrame:
    """Protect the personal columns of a frame. The key of an address becomes the key of the protected address."""
    personal = [column for column in load.columns if column.personal is not Personal.NO]
    return frame.with_columns(_protected(column, protection).alias(column.name) for column in personal)


def protected_rejects(rejects: Sequence[Reject], protection: Protection) -> list[Reject]:
    """Protect records that could not be stored and may contain anything. Equal records stay equal."""
    if not rejects:
        return []
    columns = {column.name: column for column in bookkeeping.REJECTS.columns}
    frame = pl.DataFrame(
        [(reject.raw.encode("utf-8", "replace").decode(), reject.reason) for reject in rejects],
        {"raw": pl.String(), "reason": pl.String()},
        orient="row",
    ).with_columns(
        _protected(columns["raw"], protection).alias("raw"),
        pl.col("reason").str.replace_all(_IDENTIFYING_WORD, "…"),
    )
    return [
        reject._replace(raw=raw, reason=reason) for reject, (raw, reason) in zip(rejects, frame.rows(), strict=True)
    ]


def hashed(text: pl.Expr, salt: str) -> pl.Expr:
    """Return the first 32 hexadecimal digits of SHA-256(salt || text). Nulls stay."""
    digest: pl.Expr = (pl.lit(salt) + text).chash.sha2_256()  # type: ignore[attr-defined]
    return digest.str.head(_DIGITS)


def _protected(column: Column, protection: Protection) -> pl.Expr:
    value, salt = pl.col(column.name), protection.salt
    if column.personal is Personal.KEY_OF_EMAIL:
        return md5(hashed(pl.col("email"), salt))
    if column.personal is Personal.NUMBER or (protection.drops and column.personal in _DROPPED_AS_TEXT):
        return pl.lit(None, column.type.polars)
    if column.personal is Personal.NAME:
        replacement = pl.lit(None, pl.String()) if protection.drops else hashed(value, salt)
        return pl.when(value.str.contains(_IDENTIFYING)).then(replacement).otherwise(value)
    if column.personal is Personal.TEXT or protection.drops:
        return hashed(value, salt)
    kept = ("id", *_IDS) if column.personal is Personal.RECORD else _IDS
    return value.map_batches(lambda documents: _documents(documents, salt, kept), pl.String())


class _Hashes(dict[str, str]):
    """The hash of each text, computed once. The empty text identifies no person and stays."""

    def __init__(self, salt: str) -> None:
        super().__init__({"": ""})
        self._salted = sha256(salt.encode())

    def __missing__(self, text: str) -> str:
        salted = self._salted.copy()
        salted.update(text.encode())
        self[text] = digest = salted.hexdigest()[:_DIGITS]
        return digest


class _Names(dict[str, str]):
    """The names of members of objects: unchanged, unless they contain an address or a phone number."""

    def __init__(self, hashes: _Hashes) -> None:
        super().__init__()
        self._hashes = hashes

    def __missing__(self, name: str) -> str:
        self[name] = protected = self._hashes[name] if re.search(_IDENTIFYING, name) else name
        return protected


def _documents(documents: pl.Series, salt: str, kept: Sequence[str]) -> pl.Series:
    """Hash the texts in JSON documents, except the ids in `kept` on their first level."""
    hashes = _Hashes(salt)
    names = _Names(hashes)
    hidden = [None if text is None else _document(text, hashes, names, kept) for text in documents]
    return pl.Series(documents.name, hidden, pl.String())


def _document(text: str, hashes: _Hashes, names: _Names, kept: Sequence[str]) -> str:
    try:
        document = _decode(text)
        hidden = _hidden(document, hashes, names)
        if type(document) is dict:
            hidden.update({name: document[name] for name in kept if _is_id(document.get(name))})
        return _encode(hidden).decode()
    except (msgspec.DecodeError, RecursionError):  # not JSON, or nested too deeply to decode
        return f'"{hashes[text]}"'


def _is_id(value: Any) -> bool:
    return type(value) is int or (type(value) is str and not _NO_ID.search(value))


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
