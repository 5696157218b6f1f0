"""Reading the collections of an account page by page, with the tags of their rows where they have some.

Knows no resource and no revision.
"""

from collections.abc import Iterator, Mapping

from klaviyo_pg.errors import KlaviyoPgError, MissingScope
from klaviyo_pg.klaviyo.client import Client, Endpoint
from klaviyo_pg.klaviyo.current.paging import Document, ReadPage, read_pages
from klaviyo_pg.klaviyo.documents import DocumentDecoder
from klaviyo_pg.klaviyo.page_sizes import PageSizes


class Reader:
    """A client, and the page sizes that the API accepts."""

    def __init__(self, client: Client, sizes: PageSizes) -> None:
        self._client, self._sizes = client, sizes

    def pages(
        self, endpoint: Endpoint, decoder: DocumentDecoder[Document], query: Mapping[str, str]
    ) -> Iterator[ReadPage[Document]]:
        """Read a collection."""
        return read_pages(self._client, endpoint, decoder, query, self._sizes)

    def tagged_pages(
        self, endpoint: Endpoint, decoder: DocumentDecoder[Document], query: Mapping[str, str]
    ) -> Iterator[ReadPage[Document]]:
        """Read a collection with the tags of its rows; without them if the key may not read tags."""
        include = ",".join(filter(None, (query.get("include"), "tags")))
        with_tags = self.pages(endpoint, decoder, {**query, "include": include, "fields[tag]": "name"})
        return unless_refused(with_tags, MissingScope, self.pages(endpoint, decoder, query))


def unless_refused(
    pages: Iterator[ReadPage[Document]], refusal: type[KlaviyoPgError], others: Iterator[ReadPage[Document]]
) -> Iterator[ReadPage[Document]]:
    """Yield pages; the other ones if the API refuses the first page."""
    try:
        first = next(pages, None)
    except refusal:
        yield from others
        return
    if first is not None:
        yield first
        yield from pages
