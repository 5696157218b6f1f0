"""Paging through a collection of the current dialect, and the progress of a sorted read. Knows no resource."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from klaviyo_pg import rows
from klaviyo_pg.errors import PageTooLarge, TooMuch
from klaviyo_pg.klaviyo.client import Client, Endpoint
from klaviyo_pg.klaviyo.collections import refuse_circle
from klaviyo_pg.klaviyo.current.resources import Links
from klaviyo_pg.klaviyo.documents import DocumentDecoder
from klaviyo_pg.klaviyo.page_sizes import PageSizes, smaller

_SMALLEST_PAGE = 10  # rows, requested if larger pages take too long
_GOOD_PAGES = 8  # of a smaller size before a larger one is tried again; doubled after each failure
_PAGE_SIZE = "page[size]"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Document(Protocol):
    links: Links | None


Document = TypeVar("Document", bound=_Document)


class ReadPage(NamedTuple, Generic[Document]):
    """A page of a collection, the records that were taken out of it, and the time of the request."""

    document: Document
    rejects: list[rows.Reject]
    read_at: datetime


class Reached:
    """The progress of a read that is sorted by a time, for `rows.Page.reached`.

    The order is checked, because a checkpoint that relies on it would otherwise skip rows. After the first time that is
    missing or out of order, the progress is unknown for the rest of the read.
    """

    def __init__(self) -> None:
        self._last: datetime | None = datetime.min.replace(tzinfo=UTC)

    def after(self, times: Iterable[datetime | None]) -> datetime | None:
        """Add the times of one more page. Return the time before which everything has been read, if it is known."""
        for time in times:
            moment = rows.utc(time)
            is_in_order = moment is not None and self._last is not None and moment >= self._last
            self._last = moment if is_in_order else None
        return self._last if self._last is not None and self._last > _EPOCH else None


def read_pages(
    client: Client,
    endpoint: Endpoint,
    decoder: DocumentDecoder[Document],
    query: Mapping[str, str],
    sizes: PageSizes,
) -> Iterator[ReadPage[Document]]:
    """Read all pages of a collection. Raises BadAnswer for a link that has already been followed.

    A page size that the API refuses leads to the next smaller one that it accepts, which `sizes` remembers.
    """
    size = _PageSize(sizes.of(endpoint))
    request: _Request | None = _first(endpoint, query, size.rows)
    followed = set[str]()
    while request is not None:
        refuse_circle(request.link, followed, endpoint.path)
        read_at = datetime.now(UTC)
        try:
            document, rejects = client.get(
                request.link, request.parameters, endpoint, read=decoder.decode, can_ask_for_less=size.can_shrink
            )
        except TooMuch:
            if not size.can_shrink:
                raise
            request = request.sized(size.shrink())
            continue
        except PageTooLarge:
            if not size.accepts_less():
                raise
            request = request.sized(size.rows)
            continue
        sizes.learn(endpoint, size.largest)
        followed.add(request.link)
        yield ReadPage(document, list(rejects), read_at)
        request = _next(document, size)


class _Request(NamedTuple):
    """A path with parameters, or a link that already contains them."""

    link: str
    parameters: Mapping[str, str] | None = None

    def sized(self, page_size: int) -> "_Request":
        """Return the request for the same page with another number of rows."""
        if self.parameters is not None:
            return self._replace(parameters={**self.parameters, _PAGE_SIZE: str(page_size)})
        url = urlsplit(self.link)
        query = [(name, value) for name, value in parse_qsl(url.query, keep_blank_values=True) if name != _PAGE_SIZE]
        return _Request(urlunsplit(url._replace(query=urlencode([*query, (_PAGE_SIZE, str(page_size))]))))


class _PageSize:
    """The number of rows to request: fewer after a response that took too long, more again after some good pages."""

    def __init__(self, largest: int) -> None:
        self.rows = self.largest = largest
        self._good, self._enough = 0, _GOOD_PAGES

    @property
    def can_shrink(self) -> bool:
        return self.rows > _SMALLEST_PAGE

    def shrink(self) -> int:
        self.rows = max(_SMALLEST_PAGE, self.rows // 4)
        self._good, self._enough = 0, self._enough * 2
        return self.rows

    def accepts_less(self) -> bool:
        """Reduce the size for good after a refusal. Return False if there is no smaller one."""
        less = smaller(self.rows)
        if less is None:
            return False
        self.rows = self.largest = less
        return True

    def grow(self) -> bool:
        """Count a good page. Return True if the next one should be larger."""
        self._good += 1
        if self.rows == self.largest or self._good < self._enough:
            return False
        self.rows, self._good = min(self.largest, self.rows * 4), 0
        return True


def _first(endpoint: Endpoint, query: Mapping[str, str], page_size: int) -> _Request:
    request = _Request(endpoint.path, {name: value for name, value in query.items() if value})  # "" would be refused
    return request.sized(page_size) if page_size else request


def _next(document: _Document, size: _PageSize) -> _Request | None:
    link = document.links and document.links.next
    if not link:
        return None
    return _Request(link).sized(size.rows) if size.grow() else _Request(link)
