"""Collections that an API lists in parts only, such as campaigns by channel. Knows no dialect."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from klaviyo_pg.errors import Incomplete, KlaviyoPgError, MissingScope, Refused

Page = TypeVar("Page")


def in_parts(
    parts: Mapping[str, Callable[[], Iterator[Page]]], closing: Callable[[Incomplete], Page]
) -> Iterator[Page]:
    """Read the parts of a collection one after the other. A part that is refused does not stop the others.

    If any was refused, the last page is the one that `closing` returns. Raises the first error if nothing was read.
    """
    refused: dict[str, KlaviyoPgError] = {}
    has_read = False
    for name, read in parts.items():
        try:
            for page in read():
                has_read = True
                yield page
        except (Refused, MissingScope) as error:
            refused[name] = error
    if not refused:
        return
    first = next(iter(refused.values()))
    if not has_read:
        raise first
    yield closing(Incomplete(list(refused), str(first)))
