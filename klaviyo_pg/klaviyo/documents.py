"""JSON documents decoded into typed rows; a row that does not fit is set aside, not the page it stands on."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from klaviyo_pg.errors import Garbled
from klaviyo_pg.klaviyo.rows import Reject

Document = TypeVar("Document")

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_TOKEN = re.compile(_STRING + rb'|[][{},"]', re.DOTALL)
_MEMBER = re.compile(rb"\s*+(" + _STRING + rb")\s*+:(.*)", re.DOTALL)
_CLOSING = {ord("["): ord("]"), ord("{"): ord("}")}
_COMMA, _QUOTE = ord(","), ord('"')
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"


class Decoded(NamedTuple, Generic[Document]):
    """A document whose rows are all readable, and the records that were taken out of it."""

    document: Document
    rejects: Sequence[Reject]


class DocumentDecoder(Generic[Document]):
    """Decodes pages of one collection, whose rows stand in lists under the given names.

    The usual page is decoded in one go. Where that fails, its rows are tried one by one.
    """

    def __init__(self, document: type[Document], **rows: Any) -> None:
        self._decode = msgspec.json.Decoder(document).decode
        self._rows = {name: msgspec.json.Decoder(row).decode for name, row in rows.items()}

    def decode(self, body: bytes) -> Decoded[Document]:
        """Raises Garbled where the body is not a document of this kind at all."""
        try:
            body.isascii() or body.decode()  # msgspec does not look into what it leaves undecoded, such as properties
            return Decoded(self._decode(body), ())
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return self._row_by_row(body)

    def _row_by_row(self, body: bytes) -> Decoded[Document]:
        members = _members(body)
        rejects: list[Reject] = []
        read = {}
        for name, decode in self._rows.items():
            if name in members:  # the document says whether it has to be there
                read[name] = _readable(_listed(name, members[name]), decode, rejects)
                members[name] = b"[]"
        try:
            document = self._decode(_joined(members))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Garbled(f"The answer is not one of Klaviyo's API ({error}): check KLAVIYO_BASE_URL.") from None
        for name, found in read.items():
            setattr(document, name, found)
        return Decoded(document, rejects)


def records(body: bytes) -> list[bytes]:
    """The elements of a document that is a list, undecoded. Raises Garbled where it is none."""
    try:
        return [bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except (msgspec.MsgspecError, RecursionError):
        return _listed("JSON", body)


def is_object(body: bytes) -> bool:
    """Whether a body is one JSON object to its end, whatever stands in it."""
    try:
        _parts(body, b"{")
    except ValueError:
        return False
    return True


def reject(record: bytes, error: Exception) -> Reject:
    """A record as it came, bytes that are no text as \\xNN, and what is wrong with it."""
    reason = "It is nested too deeply." if isinstance(error, RecursionError) else str(error) or type(error).__name__
    return Reject(record.decode("utf-8", "backslashreplace"), reason)


def _readable(found: list[bytes], decode: Callable[[bytes], Any], rejects: list[Reject]) -> list[Any]:
    read = []
    for record in found:
        try:
            record.decode()
            read.append(decode(record))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            rejects.append(reject(record, error))
    return read


def _members(body: bytes) -> dict[str, bytes]:
    """The members of a document by name, undecoded; of two with one name the last."""
    try:
        return dict(_member(part) for part in _parts(body.removeprefix(_BYTE_ORDER_MARK), b"{"))
    except ValueError as error:
        raise Garbled(f"The answer is not JSON of Klaviyo's API ({error}): check KLAVIYO_BASE_URL.") from None


def _member(text: bytes) -> tuple[str, bytes]:
    found = _MEMBER.fullmatch(text)
    if not found:
        raise ValueError("a member has no name")
    return msgspec.json.decode(found[1], type=str), found[2]


def _joined(members: dict[str, bytes]) -> bytes:
    return b"{" + b",".join(msgspec.json.encode(name) + b":" + value for name, value in members.items()) + b"}"


def _listed(name: str, text: bytes) -> list[bytes]:
    try:
        return _parts(text, b"[")
    except ValueError as error:
        raise Garbled(f"The answer's {name} is not a list ({error}): check KLAVIYO_BASE_URL.") from None


def _parts(text: bytes, opening: bytes) -> list[bytes]:
    """What stands between the outermost brackets, cut at its commas; knows of strings and brackets, and no depth.

    Raises ValueError where the brackets do not match or a string has no end.
    """
    text = text.strip(_BLANK)
    if not text.startswith(opening):
        raise ValueError(f"it does not begin with {opening.decode()}")
    parts, begin, closing = [], 1, bytearray()
    for token in _TOKEN.finditer(text):
        at, end = token.span()
        mark = text[at]
        if mark in _CLOSING:
            closing.append(_CLOSING[mark])
        elif mark == _QUOTE:
            if end - at == 1:
                raise ValueError("a string has no end")
        elif mark == _COMMA:
            if len(closing) == 1:
                parts.append(text[begin:at].strip(_BLANK))
                begin = end
        elif closing.pop() != mark:
            raise ValueError("its brackets do not match")
        if not closing:
            break
    if closing or end != len(text):
        raise ValueError("it has no end" if closing else "it goes on after its end")
    last = text[begin:-1].strip(_BLANK)
    return [*parts, last] if parts or last else []
