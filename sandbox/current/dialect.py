"""Authentication, error responses and extra rate limits of the current dialect. Must not know any rows."""

from starlette.requests import Request
from starlette.responses import Response

from sandbox.account.ids import uuid
from sandbox.api.endpoint import Context, Dialect
from sandbox.api.errors import ApiError
from sandbox.api.keys import ALL_SCOPES, scopes_of
from sandbox.api.limits import XS, M
from sandbox.current import revisions
from sandbox.current.errors import error_document, invalid
from sandbox.encoding import dump

MEDIA_TYPE = "application/vnd.api+json"
_EXTRA_LIMITS = {  # for expensive fields, shared by all endpoints that offer them
    ("additional-fields[profile]", "predictive_analytics"): M,
    ("additional-fields[list]", "profile_count"): XS,
    ("additional-fields[segment]", "profile_count"): XS,
}


async def _admit(context: Context, request: Request, scopes: tuple[str, ...]) -> None:
    """Raise ApiError unless the request has a valid key with these scopes and a revision."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if not scheme:
        raise ApiError(401, "not_authenticated", "Missing authentication credentials.")
    if scheme not in ("Klaviyo-API-Key", "Bearer") or (held := scopes_of(key, context.keys)) is None:
        raise ApiError(401, "authentication_failed", "Incorrect authentication credentials.")
    if ALL_SCOPES not in held and not set(scopes) <= held:
        missing = ", ".join(sorted(set(scopes) - held))
        raise ApiError(403, "permission_denied", f"The API key is missing the required scopes: {missing}.")
    revisions.admit(context, request)
    page_size = request.query_params.get("page[size]", "")
    if page_size.isdecimal() and int(page_size) > context.largest_page:
        raise invalid(f"Page size must be an integer between 1 and {context.largest_page}.", "page[size]")


def _refuse(error: ApiError, count: int) -> Response:
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    return Response(dump(error_document(error, uuid("error", count))), error.status, headers, MEDIA_TYPE)


CURRENT = Dialect(_admit, _refuse, MEDIA_TYPE, _EXTRA_LIMITS)
