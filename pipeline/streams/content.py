"""Templates, forms and images: read by the time of their last change, and now and then in full.

A full read also shows what Klaviyo no longer has. It keeps the ids that it finds in memory, of which there are few.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import absent_rows, watermarks
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Form, Image, Page, Template
from klaviyo_pg.windows import AnyWindow
from pipeline.batch import Batch, batch_of
from pipeline.chunks import key_of
from pipeline.streams.stream import OpenedChunk, Reading, Stream, by_rows, collected
from transforms import content

FULL_READS = "content_read"
"""The name under which watermarks record when a stream was last read in full."""
_BATCH_ROWS = 200  # in one transaction: a template can have a megabyte
_SCHEDULE = "every daily run, from a day before its watermark on; every week in full"

ReadPages = Callable[[Source, AnyWindow], Iterator[Page[Any]]]
ToBatch = Callable[[Reading, Sequence[Page[Any]]], Batch]


class _CollectionRead:
    """One reading of a collection. Only a full read that was not interrupted, and in which every record was readable,
    makes anything absent."""

    def __init__(self, reading: Reading, stream: Stream, read: ReadPages) -> None:
        self._reading, self._stream, self._read = reading, stream, read
        self._found: set[str] = set()
        self._is_complete = reading.is_full_read and not reading.is_resumed
        self._has_pages = False  # a dialect that does not have the collection returns none

    def pages(self) -> Iterator[Page[Any]]:
        for page in self._read(self._reading.source, self._reading.window):
            self._has_pages = True
            self._is_complete &= not (page.incomplete or any(reject.hides for reject in page.rejects))
            self._found.update(row.id for row in page.rows)
            yield page

    def finish(self, account: Account, guard: Guard) -> None:
        """Mark what is absent, and record the full read."""
        if not (self._is_complete and self._has_pages):
            return
        if absent_rows.mark_others(account, guard, self._stream.table, self._found):
            watermarks.advance(account, key_of(FULL_READS, self._stream.name), None, self._reading.run.as_of, None)


def _templates(reading: Reading, pages: Sequence[Page[Template]]) -> Batch:
    rows, rejects = collected(pages)
    return batch_of([(loads.TEMPLATES, content.templates(rows, reading.integration_id))], {"templates": rejects})


def _forms(reading: Reading, pages: Sequence[Page[Form]]) -> Batch:
    rows, rejects = collected(pages)
    frames = [
        (loads.FORMS, content.forms(rows, reading.integration_id)),
        (loads.FORM_VERSIONS, content.form_versions(rows, reading.integration_id)),
    ]
    of_versions = [reject._replace(hides=False) for form in rows for reject in form.rejects]  # the form has no marker
    return batch_of(frames, {"forms": rejects, "form_versions": of_versions})


def _images(reading: Reading, pages: Sequence[Page[Image]]) -> Batch:
    rows, rejects = collected(pages)
    return batch_of([(loads.IMAGES, content.images(rows, reading.integration_id))], {"images": rejects})


def _stream(name: str, cursor: str, read: ReadPages, to_batch: ToBatch, *ways: Load) -> Stream:
    """Declare a collection with a row for each id."""

    def open_chunk(reading: Reading) -> OpenedChunk:
        one = _CollectionRead(reading, stream, read)
        return OpenedChunk(one.pages(), lambda pages: to_batch(reading, pages), one.finish)

    stream = Stream(
        name,
        open_chunk,
        by_rows,
        _BATCH_ROWS,
        ways,
        _SCHEDULE,
        probe=lambda source, window, subject: read(source, window),
        cursor=cursor,
        is_optional=True,
    )
    return stream


TEMPLATES = _stream(
    "templates", "updated", lambda source, window: source.templates(window), _templates, loads.TEMPLATES
)
FORMS = _stream(
    "forms", "updated_at", lambda source, window: source.forms(window), _forms, loads.FORMS, loads.FORM_VERSIONS
)
IMAGES = _stream("images", "updated_at", lambda source, window: source.images(window), _images, loads.IMAGES)
STREAMS = (TEMPLATES, FORMS, IMAGES)
