"""The streams that are read only if TABLES asks for them: catalog, coupons, reviews, push tokens, predictions."""

from collections.abc import Callable, Iterator, Sequence

from klaviyo_pg.catalogue import Load, loads, on_request
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.postgres import absent_rows
from klaviyo_pg.postgres.account import Account
from klaviyo_pg.postgres.losses import Guard
from klaviyo_pg.rows import Page, Record
from klaviyo_pg.windows import FULL_READ, AnyWindow
from pipeline.batch import CleanedFrames
from pipeline.streams.collections import collection
from pipeline.streams.dimensions import full_read
from pipeline.streams.stream import Finish, Reading, Stream, nothing
from transforms import records

_BATCH_ROWS = 2_000  # in one transaction: a page has a hundred
_EVERY_RUN = "every daily run, in full, if TABLES asks for it"
_BY_CHANGE = "if TABLES asks for it: every daily run, from a day before its watermark on; every week in full"


def _frames(reading: Reading, fills: Sequence[Load], rows: Sequence[Record]) -> CleanedFrames:
    return [(load, records.records(rows, load, reading.integration_id)) for load in fills]


def _large(
    name: str,
    *fills: Load,
    cursor: str | None = None,
    subject: str | None = None,
    is_swept: bool = True,
    needs: frozenset[str] = frozenset(),
) -> Stream:
    """Declare a stream that is stored batch by batch: read in full by every run, or by the time of the last change."""

    def read(source: Source, window: AnyWindow, wanted: str | None) -> Iterator[Page[Record]]:
        return source.records(name, window, wanted)

    return collection(
        name,
        read,
        lambda reading, rows: _frames(reading, fills, rows),
        *fills,
        batch_rows=_BATCH_ROWS,
        schedule=_BY_CHANGE if cursor else _EVERY_RUN,
        cursor=cursor,
        subject=subject,
        is_swept=is_swept,
        on_request=True,
        needs=needs,
    )


def _small(name: str, load: Load, finish: Callable[[Reading], Finish] = lambda reading: nothing) -> Stream:
    """Declare a stream that every run reads in full, and stores at once."""
    return full_read(
        name,
        lambda source: source.records(name, FULL_READ),
        lambda reading, rows: _frames(reading, [load], rows),
        load,
        rejects=name,
        finish=finish,
        is_optional=True,
        on_request=True,
    )


def _mark_codes(reading: Reading) -> Finish:
    """Mark the codes of deleted coupons, which are not read any more."""

    def mark(account: Account, guard: Guard) -> None:
        absent_rows.mark_owned(account, on_request.COUPON_CODES, "coupon_key", on_request.COUPONS)
        absent_rows.forget_owned(account, COUPON_CODES.name, on_request.COUPONS)

    return mark


CATALOG_CATEGORIES = _small("catalog_categories", loads.CATALOG_CATEGORIES)
CATALOG_ITEMS = _large("catalog_items", loads.CATALOG_ITEMS, loads.CATALOG_VARIANTS)
COUPONS = _small("coupons", loads.COUPONS, _mark_codes)
COUPON_CODES = _large("coupon_codes", loads.COUPON_CODES, subject="coupon", needs=frozenset({COUPONS.name}))
REVIEWS = _large("reviews", loads.REVIEWS, cursor="updated")
PUSH_TOKENS = _large("push_tokens", loads.PUSH_TOKENS)
MEMBER_PREDICTIONS = _large("member_predictions", loads.MEMBER_PREDICTIONS, cursor="updated", is_swept=False)
DIMENSIONS = (CATALOG_CATEGORIES, COUPONS)
"""Those that are stored at once."""
LARGE = (CATALOG_ITEMS, COUPON_CODES, PUSH_TOKENS)
"""Those that every run reads in full, and stores batch by batch."""
BY_CHANGE = (REVIEWS, MEMBER_PREDICTIONS)
"""Those that are read by the time of the last change, and every week in full."""
STREAMS = (*LARGE, *BY_CHANGE)
"""Those that are not stored at once."""
