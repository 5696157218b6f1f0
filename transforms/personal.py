"""What the catalogue marks as personal, hashed or dropped. Equal texts have equal hashes, so that joins still hold."""

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
from klaviyo_pg.klaviyo.rows import Reject
from transforms.keys import md5

_DIGITS = 32  # of a hash in hexadecimal: 128 bits
_LONG = 7  # digits from which on a number may be one to call, or a place to the metre
_TELLING = rf"@|(?:\d\D*){{{_LONG}}}"  # in a name: an address, or a number to call
_TELLING_WORD = rf"\S*@\S*|\+?(?:\d[^\w,;]*){{{_LONG - 1},}}\d"  # in a sentence
_IDS = ("$message", "$flow", "$event_id")  # of a campaign, a flow and an event: keys are made of the first two
_NO_ID = re.compile(r"^\+|@")
_DROPPED_AS_TEXT = frozenset({Personal.TEXT, Personal.JSON, Personal.NUMBER})

_decode = msgspec.json.Decoder(float_hook=Decimal).decode  # no digit of a number that stays is lost
_encode = msgspec.json.Encoder(decimal_format="number").encode


@dataclass(frozen=True)
class Protection:
    """How personal data are protected: hashed with a secret salt, or (`drops`) left out."""

    drops: bool
    salt: str = field(repr=False)


def protected(frame: pl.DataFrame, load: Load, protection: Protection) -> pl.DataFrame:
    """The frame of a load with its personal columns protected. Its keys follow from what is stored, as before."""
    personal = [column for column in load.columns if column.personal is not Personal.NO]
    return frame.with_columns(_protected(column, protection).alias(column.name) for column in personal)


def protected_rejects(rejects: Sequence[Reject], protection: Protection) -> list[Reject]:
    """Records that could not be stored, which may hold anything; the same record is the same again."""
    if not rejects:
        return []
    columns = {column.name: column for column in bookkeeping.REJECTS.columns}
    frame = pl.DataFrame(
        [(reject.raw.encode("utf-8", "replace").decode(), reject.reason) for reject in rejects],
        {"raw": pl.String(), "reason": pl.String()},
        orient="row",
    ).with_columns(
        _protected(columns["raw"], protection).alias("raw"),
        pl.col("reason").str.replace_all(_TELLING_WORD, "…"),
    )
    return [
        reject._replace(raw=raw, reason=reason) for reject, (raw, reason) in zip(rejects, frame.rows(), strict=True)
    ]


def hashed(text: pl.Expr, salt: str) -> pl.Expr:
    """The first 32 hexadecimal digits of SHA-256(salt || text); null of null."""
    digest: pl.Expr = (pl.lit(salt) + text).chash.sha2_256()  # type: ignore[attr-defined]
    return digest.str.head(_DIGITS)


def _protected(column: Column, protection: Protection) -> pl.Expr:
    value, salt = pl.col(column.name), protection.salt
    if column.personal is Personal.KEY_OF_EMAIL:
        return md5(hashed(pl.col("email"), salt))
    if column.personal is Personal.NUMBER or (protection.drops and column.personal in _DROPPED_AS_TEXT):
        return pl.lit(None, column.type.polars)
    if column.personal is Personal.NAME:
        instead = pl.lit(None, pl.String()) if protection.drops else hashed(value, salt)
        return pl.when(value.str.contains(_TELLING)).then(instead).otherwise(value)
    if column.personal is Personal.TEXT or protection.drops:
        return hashed(value, salt)
    kept = ("id", *_IDS) if column.personal is Personal.RECORD else _IDS
    return value.map_batches(lambda documents: _documents(documents, salt, kept), pl.String())


class _Hashes(dict[str, str]):
    """The hash of each text, worked out once; the empty text tells nothing and stays."""

    def __init__(self, salt: str) -> None:
        super().__init__({"": ""})
        self._salted = sha256(salt.encode())

    def __missing__(self, text: str) -> str:
        salted = self._salted.copy()
        salted.update(text.encode())
        self[text] = digest = salted.hexdigest()[:_DIGITS]
        return digest


class _Names(dict[str, str]):
    """The names of members of objects: as they are, unless they are addresses or numbers to call."""

    def __init__(self, hashes: _Hashes) -> None:
        super().__init__()
        self._hashes = hashes

    def __missing__(self, name: str) -> str:
        self[name] = shown = self._hashes[name] if re.search(_TELLING, name) else name
        return shown


def _documents(documents: pl.Series, salt: str, kept: Sequence[str]) -> pl.Series:
    """JSON documents with the texts in them hashed, but for the ids on their first level that are to be kept."""
    hashes = _Hashes(salt)
    names = _Names(hashes)
    shown = [None if text is None else _document(text, hashes, names, kept) for text in documents]
    return pl.Series(documents.name, shown, pl.String())


def _document(text: str, hashes: _Hashes, names: _Names, kept: Sequence[str]) -> str:
    try:
        found = _decode(text)
        shown = _hidden(found, hashes, names)
        if type(found) is dict:
            shown.update({name: found[name] for name in kept if _is_id(found.get(name))})
        return _encode(shown).decode()
    except (msgspec.DecodeError, RecursionError):  # no JSON, or nested too deeply to look into
        return f'"{hashes[text]}"'


def _is_id(value: Any) -> bool:
    return type(value) is int or (type(value) is str and not _NO_ID.search(value))


def _hidden(value: Any, hashes: _Hashes, names: _Names) -> Any:
    """A JSON value with its texts and long numbers hashed; short numbers, booleans and nulls tell nothing."""
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
