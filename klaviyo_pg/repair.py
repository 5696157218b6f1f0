"""JSON that Postgres or a strict decoder refuses, rewritten so that both accept it. Knows no records and no tables.

Only what cannot be kept is replaced. The text is rewritten token by token, so that any depth of nesting is safe.
"""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

DEEPEST = 500
"""Levels of nesting that a repaired document keeps: far below what decoders and Postgres accept."""
REASON = (
    "The record was stored, but values that Postgres cannot hold were replaced: lone surrogates and invalid bytes by "
    f"U+FFFD, what is nested deeper than {DEEPEST} levels by null, and numbers that are too large or invalid by text."
)
"""The reason to give where the original of a repaired record is kept."""

_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[][{}:,]|[^][{}:,"\s]++|"', re.DOTALL)
_SUSPICIOUS = re.compile(rb"[\x00-\x1f\x80-\xff]|\\u[dD][89a-fA-F]|\\(?!u[0-9a-fA-F]{4}|[\"\\/bfnrt])")
_PART = re.compile(
    r"(?P<kept>\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"  # a pair of surrogates
    r"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    r'|(?P<escape>\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt]))'
    r"|(?P<backslash>\\)"
    r"|(?P<control>[\x00-\x1f])"
    r"|(?P<byte>[\udc80-\udcff])"  # one that is not UTF-8
)
_SCALAR = re.compile(rb"true|false|null|-?(?:0|[1-9]\d{0,99999})(?:\.\d{1,9999})?(?:[eE][+-]?\d{1,4})?")
_IDENTITY = frozenset({b'"id"', b'"list_id"', b'"email"'})
_FREE = frozenset({b'"event_properties"', b'"properties"'})


class Repaired(NamedTuple):
    """A document that can be decoded and stored, and the number of values in it that were replaced."""

    text: bytes
    replaced: int


def repaired(document: bytes) -> Repaired | None:
    """Return a document that can be stored; None if there was nothing to repair, or an identity would have changed.

    Names and values with which a record is recognised are never replaced: it could become another record.
    """
    repair = _Repair(document)
    try:
        pieces = list(repair.pieces())
    except _Identity:
        return None
    return Repaired(b"".join(pieces), repair.replaced) if repair.has_changed else None


class _Identity(Exception):
    """A value that identifies a record cannot be stored."""


class _Repair:
    """The repair of one document."""

    def __init__(self, document: bytes) -> None:
        self._document = document
        self.replaced, self.has_changed = 0, False
        self._keys: list[bytes] = []  # of the open containers
        self._key = self._last = b""
        self._cut_at = 0  # the depth of a value that is being left out

    def pieces(self) -> Iterator[bytes]:
        """Yield the repaired document."""
        copied = 0
        for token in _TOKEN.finditer(self._document):
            begin, end = token.span()
            text = token[0]
            was_cut = self._cut_at > 0
            self._follow(text)
            new = self._cut(text, was_cut) if was_cut or self._cut_at else self._repaired(text)
            if new is not text:
                self.has_changed = True
                yield self._document[copied:begin]
                yield new
                copied = end
        yield self._document[copied:]

    def _follow(self, text: bytes) -> None:
        """Keep track of where in the document a token is."""
        if text == b":":
            self._key = self._last
        elif text in (b"[", b"{"):
            self._keys.append(self._key)
            self._key = b""
            if not self._cut_at and len(self._keys) > DEEPEST:
                self._cut_at = len(self._keys)
        elif text == b",":
            self._key = b""
        elif text in (b"]", b"}") and self._keys:
            self._key = self._keys.pop()
        self._last = text

    def _cut(self, text: bytes, was_cut: bool) -> bytes:
        """Return what stands for a token of a value that is left out: null for the first one, else nothing."""
        if was_cut:
            if len(self._keys) < self._cut_at:
                self._cut_at = 0
            return b""
        self.replaced += 1
        return b"null"

    def _repaired(self, text: bytes) -> bytes:
        if text[0] == ord('"'):
            return self._string(text) if _SUSPICIOUS.search(text) else text
        if text in (b"[", b"]", b"{", b"}", b":", b",") or _SCALAR.fullmatch(text):
            return text
        self.replaced += 1
        return json.dumps(text.decode(errors="replace"), ensure_ascii=False).encode()

    def _string(self, raw: bytes) -> bytes:
        before = self.replaced
        new = _PART.sub(self._part, raw.decode(errors="surrogateescape")).encode()
        if self.replaced > before and self._key in _IDENTITY and not _FREE.intersection(self._keys):
            raise _Identity
        return raw if new == raw else new

    def _part(self, part: re.Match[str]) -> str:
        match part.lastgroup:
            case "lone" | "byte":
                self.replaced += 1
                return "\N{REPLACEMENT CHARACTER}"
            case "backslash":
                return "\\\\"
            case "control":
                return f"\\u{ord(part[0]):04x}"
        return part[0]
