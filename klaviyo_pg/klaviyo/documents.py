"""JSON documents decoded into typed rows. If a row does not fit, only that row is rejected."""

import re
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from klaviyo_pg.errors import Garbled, TooMuch
from klaviyo_pg.repair import REASON, repaired
from klaviyo_pg.rows import Reject

Document = TypeVar("Document")
Row = TypeVar("Row")

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_TOKEN = re.compile(_STRING + rb'|[][{},"]', re.DOTALL)
_MEMBER = re.compile(rb"\s*+(" + _STRING + rb")\s*+:(.*)", re.DOTALL)
_CLOSING = {ord("["): ord("]"), ord("{"): ord("}")}
_COMMA, _QUOTE = ord(","), ord('"')
_LARGEST_DAMAGED = 8 << 20  # bytes that are searched for damage; a page has at most a few megabytes
_MOST_TOKENS = 500_000  # strings, commas and brackets: a third of a second's work; a page has far fewer
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"


class Decoded(NamedTuple, Generic[Document]):
    """A document whose rows are all readable, and the records that were taken out of it."""

    document: Document
    rejects: Sequence[Reject]


class DocumentDecoder(Generic[Document]):
    """A decoder for the pages of one collection. `rows` gives the row type of each list in the document, by its name.

    Nearly all pages are decoded in one go. If that fails, the rows are decoded one by one.
    """

    def __init__(self, document: type[Document], **rows: Any) -> None:
        self._decode = msgspec.json.Decoder(document).decode
        self._rows = {name: msgspec.json.Decoder(row).decode for name, row in rows.items()}

    def decode(self, body: bytes) -> Decoded[Document]:
        """Decode a page. Raises Garbled if the body is not a document of this kind."""
        try:
            body.isascii() or body.decode()  # msgspec does not check what it leaves undecoded, such as properties
            return Decoded(self._decode(body), ())
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return self._row_by_row(body)

    def _row_by_row(self, body: bytes) -> Decoded[Document]:
        if len(body) > _LARGEST_DAMAGED:
            raise TooMuch(
                f"The response has {len(body) >> 20} MB and is damaged, too much to look for the damage in it. "
                "Check KLAVIYO_BASE_URL."
            )
        members = _members(body)
        rejects: list[Reject] = []
        rows = {}
        for name, decode in self._rows.items():
            if name in members:  # if it is missing, decoding the document raises an error where it is required
                rows[name] = _readable(_elements_of(name, members[name]), decode, rejects)
                members[name] = b"[]"
        try:
            document = self._decode(_object_of(members))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Garbled(f"The response is not a page of Klaviyo's API ({error}). Check KLAVIYO_BASE_URL.") from None
        for name, readable in rows.items():
            setattr(document, name, readable)
        return Decoded(document, rejects)


def records(body: bytes) -> list[bytes]:
    """Return the elements of a JSON list, undecoded. Raises Garbled if the body is not a list."""
    try:
        return [bytes(raw) for raw in msgspec.json.decode(body, type=list[msgspec.Raw])]
    except (msgspec.MsgspecError, RecursionError):
        return _elements_of("JSON", body)


def is_object(body: bytes) -> bool:
    """Return whether a body is one complete JSON object, whatever its members are."""
    try:
        _elements(body, b"{")
    except ValueError:
        return False
    return True


def read_repaired(record: bytes, decode: Callable[[bytes], Row], error: Exception) -> tuple[list[Row], list[Reject]]:
    """Read a record that could not be decoded, with what cannot be stored replaced.

    Returns the row, if the record could be repaired, and the original as a reject, unless the repair lost nothing.
    """
    repair = repaired(record)
    if repair is None:
        return [], [reject(record, error)]
    try:
        row = decode(repair.text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return [], [reject(record, error)]
    original = reject(record, error)._replace(reason=REASON, hides=False, replaced=repair.replaced)
    return [row], [original] if repair.replaced else []


def reject(record: bytes, error: Exception) -> Reject:
    """Return a record as a reject, unchanged except that bytes that are not text are written as \\xNN."""
    reason = (
        "The record is nested too deeply." if isinstance(error, RecursionError) else str(error) or type(error).__name__
    )
    return Reject(record.decode("utf-8", "backslashreplace"), reason)


def _readable(records: list[bytes], decode: Callable[[bytes], Any], rejects: list[Reject]) -> list[Any]:
    readable = []
    for record in records:
        try:
            record.decode()
            readable.append(decode(record))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            repaired_rows, originals = read_repaired(record, decode, error)
            readable += repaired_rows
            rejects += originals
    return readable


def _members(body: bytes) -> dict[str, bytes]:
    """Return the members of a document by name, undecoded. If a name occurs twice, its last value counts."""
    try:
        return dict(_member(text) for text in _elements(body.removeprefix(_BYTE_ORDER_MARK), b"{"))
    except ValueError as error:
        raise Garbled(f"The response is not JSON of Klaviyo's API ({error}). Check KLAVIYO_BASE_URL.") from None


def _member(text: bytes) -> tuple[str, bytes]:
    match = _MEMBER.fullmatch(text)
    if not match:
        raise ValueError("a member has no name")
    return msgspec.json.decode(match[1], type=str), match[2]


def _object_of(members: dict[str, bytes]) -> bytes:
    return b"{" + b",".join(msgspec.json.encode(name) + b":" + value for name, value in members.items()) + b"}"


def _elements_of(name: str, text: bytes) -> list[bytes]:
    try:
        return _elements(text, b"[")
    except ValueError as error:
        raise Garbled(f"The response's {name} is not a list ({error}). Check KLAVIYO_BASE_URL.") from None


def _elements(text: bytes, opening: bytes) -> list[bytes]:
    """Split the content of the outermost brackets at its commas, however deeply it is nested.

    Only strings and brackets are recognised. Raises ValueError if the brackets do not match or a string has no end, and
    TooMuch if it takes too long.
    """
    text = text.strip(_BLANK)
    if not text.startswith(opening):
        raise ValueError(f"it does not begin with {opening.decode()}")
    elements, begin, closing = [], 1, bytearray()
    for number, token in enumerate(_TOKEN.finditer(text)):
        if number > _MOST_TOKENS:
            raise TooMuch("The response is damaged, and too large to look for the damage. Check KLAVIYO_BASE_URL.")
        at, end = token.span()
        mark = text[at]
        if mark in _CLOSING:
            closing.append(_CLOSING[mark])
        elif mark == _QUOTE:
            if end - at == 1:
                raise ValueError("a string has no end")
        elif mark == _COMMA:
            if len(closing) == 1:
                elements.append(text[begin:at].strip(_BLANK))
                begin = end
        elif closing.pop() != mark:
            raise ValueError("its brackets do not match")
        if not closing:
            break
    if closing or end != len(text):
        raise ValueError("it has no end" if closing else "there is text after its end")
    last = text[begin:-1].strip(_BLANK)
    return [*elements, last] if elements or last else []
