"""The declaration of endpoints and dialects. Must not know how the server uses them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from sandbox.api.errors import ApiError
from sandbox.api.limits import Limit


class Context(Protocol):
    """The state of the server that endpoints and dialects may read."""

    keys: dict[str, frozenset[str]]  # scopes by key
    legacy: str  # the mode of the legacy dialect
    max_events: int  # on one page, however many a request asks for
    largest_page: int  # rows; larger pages are refused
    oldest_revision: str  # of the current dialect; earlier ones are retired

    def now(self) -> float:
        """Return the present as seen from the account."""


Answer = Callable[[Context, Request], Awaitable[bytes]]


@dataclass(frozen=True)
class Dialect:
    """The parts of a request that each dialect handles in its own way: authentication, errors and rate limits.

    `extra_limits` maps a query parameter and one of its values to the limit that such requests use up as well.
    """

    admit: Callable[[Context, Request, tuple[str, ...]], Awaitable[None]]
    refuse: Callable[[ApiError, int], Response]
    media_type: str
    extra_limits: Mapping[tuple[str, str], Limit] = field(default_factory=dict)
    sends_limit_headers: bool = True


@dataclass(frozen=True)
class Endpoint:
    """A method and path of the API, with the scopes that a key needs, the rate limit, and the function that answers."""

    method: str
    path: str
    scopes: tuple[str, ...]
    limit: Limit
    answer: Answer
    dialect: Dialect

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"
