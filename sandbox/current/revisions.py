"""The revision that a request is answered in. A retired one is answered in the oldest that is not, or refused."""

import re

from starlette.exceptions import HTTPException
from starlette.requests import Request

from sandbox.api.endpoint import Answer, Context
from sandbox.api.errors import ApiError

OMNICHANNEL = "2026-10-15"
OLDEST = "2025-01-15"
"""The oldest revision that is not retired."""


def admit(context: Context, request: Request) -> None:
    """Raise ApiError unless the request names a revision that it may be answered in."""
    revision = request.headers.get("revision", "")
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}(\.pre)?", revision):
        raise ApiError(400, "invalid", "The revision header must be a valid revision.", {"parameter": "revision"})
    opts_out = request.headers.get("x-klaviyo-revision-fall-forward-opt-out") == "1"
    if opts_out and revision < context.oldest_revision:
        raise ApiError(410, "gone", f"Revision {revision} was retired.")


def by_revision(earlier: Answer | None, omnichannel: Answer | None) -> Answer:
    """Return an answer that depends on the revision. None: the endpoint does not exist in it."""

    async def answer(context: Context, request: Request) -> bytes:
        revision = max(request.headers.get("revision", ""), context.oldest_revision)
        chosen = omnichannel if revision >= OMNICHANNEL else earlier
        if chosen is None:
            raise HTTPException(404)
        return await chosen(context, request)

    return answer
