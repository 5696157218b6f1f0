"""Reading collections: in parts, if an API lists them only so, and page by page, without a circle. Knows no dialect."""

from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from klaviyo_pg import rows
from klaviyo_pg.errors import BadAnswer, Incomplete, KlaviyoPgError, MissingScope, Refused

Page = TypeVar("Page")


def _closing(incomplete: Incomplete) -> Any:
    return rows.Page((), (), datetime.now(UTC), incomplete=incomplete)


def in_parts(
    parts: Mapping[str, Callable[[], Iterator[Page]]], closing: Callable[[Incomplete], Page] = _closing
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


def refuse_circle(link: int | str, followed: Collection[int | str], path: str) -> None:
    """Raise BadAnswer for a link to a page, or its token, that has already been followed."""
    if link in followed:
        raise BadAnswer(
            f"The API returned a link to a page of {path} that has already been read, so there would be no last page. "
            "Rerun with the same arguments to resume."
        )
