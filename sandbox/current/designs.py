"""The answers about templates, forms with their versions, and images."""

from collections.abc import Iterable
from secrets import token_hex
from typing import Any

from starlette.requests import Request

from sandbox.account import Account
from sandbox.account.designs import Form, FormVersion, Image, Template
from sandbox.api.endpoint import Context
from sandbox.current import allowed, listing
from sandbox.current.documents import page_document, read, row_document, row_of
from sandbox.current.listing import Page, Views
from sandbox.current.query import Query
from sandbox.current.resources import Resource, moment, pick


class Designs:
    """The endpoints of templates, forms and images."""

    def __init__(self, account: Account) -> None:
        self._account, self._views = account, Views(account)

    def _page(self, name: str, query: Query, rows: Iterable[Any]) -> Page:
        return self._views.page(name, query, lambda: listing.rows(rows, query))

    async def templates(self, context: Context, request: Request) -> bytes:
        return self._templates(request, has_screenshot=False)

    async def templates_with_screenshots(self, context: Context, request: Request) -> bytes:
        return self._templates(request, has_screenshot=True)

    def _templates(self, request: Request, has_screenshot: bool) -> bytes:
        query = read(allowed.TEMPLATES, request)
        page = self._page("templates", query, self._account.designs.templates.values())
        return page_document(query, page, lambda row: _template(query, row, has_screenshot))

    async def template(self, context: Context, request: Request) -> bytes:
        query = read(allowed.TEMPLATES.single(), request)
        row: Template = row_of(request, "template", self._account.designs.templates)
        return row_document(query, _template(query, row, has_screenshot=False))

    async def forms(self, context: Context, request: Request) -> bytes:
        query = read(allowed.FORMS, request)
        page = self._page("forms", query, self._account.designs.forms.values())
        return page_document(query, page, lambda row: _form(query, row))

    async def versions_of_form(self, context: Context, request: Request) -> bytes:
        query = read(allowed.FORM_VERSIONS, request)
        form: Form = row_of(request, "form", self._account.designs.forms)
        page = self._page(f"versions of {form.id}", query, form.versions)
        return page_document(query, page, lambda row: _form_version(query, row, form))

    async def images(self, context: Context, request: Request) -> bytes:
        query = read(allowed.IMAGES, request)
        wants_hidden = any(condition.field == "hidden" for condition in query.conditions)
        rows = [row for row in self._account.designs.images.values() if wants_hidden or not row.hidden]
        return page_document(query, self._page("images", query, rows), lambda row: _image(query, row))

    async def image(self, context: Context, request: Request) -> bytes:
        query = read(allowed.IMAGES.single(), request)
        row: Image = row_of(request, "image", self._account.designs.images)
        return row_document(query, _image(query, row))


def _resource(query: Query, kind: str, path: str, row_id: str, attributes: dict[str, Any]) -> Resource:
    shown = pick(attributes, query.fields[kind])
    return {"type": kind, "id": row_id, "attributes": shown, "links": {"self": f"{query.base}/api/{path}/{row_id}/"}}


def _template(query: Query, row: Template, has_screenshot: bool) -> Resource:
    attributes = {
        "name": row.name,
        "editor_type": row.editor_type,
        "html": row.html,
        "text": row.text,
        "amp": None,
        "created": moment(row.created),
        "updated": moment(row.updated),
    }
    if has_screenshot:  # another address at each read
        attributes["screenshot_url"] = f"https://images.example.com/{row.id}?signature={token_hex(8)}"
    return _resource(query, "template", "templates", row.id, attributes)


def _form(query: Query, row: Form) -> Resource:
    attributes = {
        "name": row.name,
        "status": row.status,
        "ab_test": row.ab_test,
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
    }
    return _resource(query, "form", "forms", row.id, attributes)


def _form_version(query: Query, row: FormVersion, form: Form) -> Resource:
    attributes = {
        "form_type": row.form_type,
        "variation_name": row.variation_name,
        "ab_test": row.ab_test and {"variation_name": row.ab_test},
        "status": row.status,
        "created_at": moment(row.created_at),
        "updated_at": moment(row.updated_at),
    }
    return _resource(query, "form-version", "form-versions", row.id, attributes)


def _image(query: Query, row: Image) -> Resource:
    attributes = {
        "name": row.name,
        "image_url": row.image_url,
        "format": row.format,
        "size": row.size,
        "hidden": row.hidden,
        "updated_at": moment(row.updated_at),
    }
    return _resource(query, "image", "images", row.id, attributes)
