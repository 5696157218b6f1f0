"""JSON documents decoded into typed rows; a row that does not fit is set aside, not the page it stands on."""

import json
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

from klaviyo_pg.errors import BadAnswer
from klaviyo_pg.klaviyo.rows import Reject

Document = TypeVar("Document")
Row = TypeVar("Row")


class Decoded(NamedTuple, Generic[Document]):
    """A document whose rows are all readable, and the records that were taken out of it."""

    document: Document
    rejects: Sequence[Reject]


class DocumentDecoder(Generic[Document]):
    """Decodes pages of one collection, whose rows stand in lists under the given names.

    The usual page is decoded in one go. Where that fails, its rows are tried one by one.
    """

    def __init__(self, document: type[Document], **rows: type[msgspec.Struct]) -> None:
        self._decode = msgspec.json.Decoder(document).decode
        self._rows = {name: msgspec.json.Decoder(row) for name, row in rows.items()}

    def decode(self, body: bytes) -> Decoded[Document]:
        """Raises BadAnswer where the body is not a document of this kind at all."""
        try:
            body.isascii() or body.decode()  # msgspec does not look into what it leaves undecoded, such as properties
            return Decoded(self._decode(body), ())
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return self._row_by_row(body)

    def _row_by_row(self, body: bytes) -> Decoded[Document]:
        try:
            loose = json.loads(body.decode("utf-8-sig", "surrogateescape"))  # bytes that are no text: in one row only
        except (ValueError, RecursionError) as error:
            raise BadAnswer(f"The answer is not JSON ({type(error).__name__}): check KLAVIYO_BASE_URL.") from None
        if not isinstance(loose, dict):
            raise BadAnswer("The answer is JSON, but not of Klaviyo's API: check KLAVIYO_BASE_URL.")
        rejects: list[Reject] = []
        for name, decoder in self._rows.items():
            if name not in loose:  # the document says whether it has to be there
                continue
            records = loose[name]
            if not isinstance(records, list):
                raise BadAnswer(f"The answer's {name} is not a list: check KLAVIYO_BASE_URL.")
            loose[name] = [record for record in records if _fits(record, decoder.decode, rejects)]
        try:
            return Decoded(self._decode(_dump(loose).encode()), rejects)
        except (msgspec.MsgspecError, RecursionError, UnicodeEncodeError) as error:
            raise BadAnswer(f"The answer is not one of Klaviyo's API ({error}): check KLAVIYO_BASE_URL.") from None


def _fits(record: object, decode: Callable[[bytes], object], rejects: list[Reject]) -> bool:
    text = _dump(record)
    try:
        decode(text.encode())
    except (msgspec.MsgspecError, RecursionError) as error:
        rejects.append(Reject(text, str(error) or type(error).__name__))
        return False
    return True


def _dump(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
