"""The largest pages that the API accepts, by endpoint: learned from refusals, and remembered for the account.

Knows no dialect and no database.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

from klaviyo_pg.klaviyo.client import Endpoint

_LOG = logging.getLogger(__name__)
_STEPS = (1000, 500, 200, 100, 50, 20, 10, 5, 1)  # rows; tried in turn after a refusal


class PageSizeStore(Protocol):
    """A place where all processes that read the account find the page sizes that were learned lately."""

    def read(self) -> Mapping[str, int]:
        """Return the page sizes by the name of the endpoint."""
        ...

    def write(self, endpoint: str, page_size: int) -> None:
        """Keep the largest page that an endpoint accepts."""
        ...


def smaller(page_size: int) -> int | None:
    """Return the page size to try after a refusal. None: there is no smaller one."""
    return next((step for step in _STEPS if step < page_size), None)


class PageSizes:
    """The page sizes of one account's endpoints. Safe to share between threads.

    `open_store` is called before the first page is requested. Without a store, sizes are remembered in memory only.
    """

    def __init__(self, open_store: Callable[[], PageSizeStore] | None = None) -> None:
        self._open_store = open_store
        self._store: PageSizeStore | None = None
        self._learned: dict[str, int] = {}
        self._lock = threading.Lock()

    def of(self, endpoint: Endpoint) -> int:
        """Return the number of rows to request: the endpoint's largest page, unless the API has refused it lately."""
        with self._lock:
            self._open()
            return min(endpoint.page_size, self._learned.get(endpoint.name, endpoint.page_size))

    def learn(self, endpoint: Endpoint, page_size: int) -> None:
        """Remember a size that the API accepted after it had refused a larger one."""
        with self._lock:
            self._open()
            if page_size >= self._learned.get(endpoint.name, endpoint.page_size):
                return
            self._learned[endpoint.name] = page_size
            if self._store is not None:
                self._store.write(endpoint.name, page_size)
        _LOG.warning("The API accepts at most %d rows on a page of %s", page_size, endpoint.path)

    def _open(self) -> None:
        if self._store is None and self._open_store is not None:
            self._store = self._open_store()
            self._learned.update(self._store.read())
