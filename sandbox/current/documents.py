"""Reading a request and assembling its JSON:API document, shared by all endpoints of the current dialect."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request

from sandbox.api.endpoint import Context
from sandbox.api.errors import ApiError
from sandbox.current import resources
from sandbox.current.errors import not_found
from sandbox.current.listing import Page
from sandbox.current.query import Collection, Query, read_query
from sandbox.encoding import dump


def base_url(request: Request) -> str:
    """Return the scheme and host of a request."""
    return f"{request.url.scheme}://{request.url.netloc}"


def read(collection: Collection, request: Request) -> Query:
    """Return the validated query of a request. Raise ApiError if the collection does not allow it."""
    return read_query(collection, base_url(request), str(request.url), request.query_params.multi_items())


def links(query: Query, cursor: list[Any] | None) -> dict[str, str | None]:
    """Return the links of a page. `cursor` is that of the next page."""
    return {"self": query.url, "next": query.link(cursor) if cursor else None, "prev": None}


def page_document(
    query: Query, page: Page, render: Callable[[Any], Any], included: Sequence[Any] | None = None
) -> bytes:
    """Return the document of a page."""
    body: dict[str, Any] = {"data": [render(item) for item in page.items]}
    if query.include:
        body["included"] = included or []
    return dump(body | {"links": links(query, page.next)})


def row_document(query: Query, data: Any, included: Sequence[Any] | None = None) -> bytes:
    """Return the document of a single row."""
    body = {"data": data} | ({"included": included or []} if query.include else {})
    return dump(body | {"links": {"self": query.url}})


def row_of(request: Request, kind: str, rows: Mapping[str, Any]) -> Any:
    """Return the row whose id is in the path. Raise ApiError 404 if it does not exist."""
    row = rows.get(request.path_params["id"])
    if row is None:
        raise not_found(kind, request.path_params["id"])
    return row


def refuse_future(context: Context, query: Query, *fields: str) -> None:
    """Raise ApiError if a condition on one of these time fields is in the future, as Klaviyo does."""
    for condition in query.conditions:
        if condition.field in fields and condition.value > context.now():
            text = resources.moment(condition.value)
            source = {"pointer": condition.field}
            raise ApiError(400, "invalid", f"End date may not be in the future: {text}", source)
