"""Templates, forms and images: the requests of the current dialect, and their rows.

Only ids have to be well-formed. Anything else of another type than expected counts as missing.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

import msgspec

from klaviyo_pg import rows
from klaviyo_pg.errors import NotFound, Refused
from klaviyo_pg.klaviyo import properties
from klaviyo_pg.klaviyo.client import Endpoint
from klaviyo_pg.klaviyo.collections import in_parts
from klaviyo_pg.klaviyo.current import resources
from klaviyo_pg.klaviyo.current.filters import between
from klaviyo_pg.klaviyo.current.paging import Reached
from klaviyo_pg.klaviyo.current.reader import Reader
from klaviyo_pg.klaviyo.documents import DocumentDecoder
from klaviyo_pg.klaviyo.lenient import boolean, member, moment, whole_number
from klaviyo_pg.klaviyo.pace import Limit
from klaviyo_pg.windows import AnyWindow

TEMPLATES = Endpoint("api/templates", "templates:read", Limit(75, 750), 10, "templates")
FORMS = Endpoint("api/forms", "forms:read", Limit(3, 60), 100, "forms")
FORM_VERSIONS = Endpoint("api/forms/{}/form-versions", "forms:read", Limit(3, 60), 100, "form versions")
IMAGES = Endpoint("api/images", "images:read", Limit(10, 150), 100, "images")

Row = TypeVar("Row", rows.Template, rows.Form, rows.Image)
_PAGES = DocumentDecoder(resources.ResourceDocument, data=resources.Resource, included=resources.Resource)


def templates(reader: Reader, window: AnyWindow) -> Iterator[rows.Page[rows.Template]]:
    """Read templates in the order of their last change. Their screenshots have another address at each read."""
    fields = {"fields[template]": "name,editor_type,html,text,created,updated"}
    return _ordered(reader, TEMPLATES, "updated", window, fields, _template)


def forms(reader: Reader, window: AnyWindow) -> Iterator[rows.Page[rows.Form]]:
    """Read forms in the order of their last change, each with its versions, which take a request for each form."""
    fields = {"fields[form]": "name,status,ab_test,created_at,updated_at"}
    reached = Reached()
    for page in _ordered(reader, FORMS, "updated_at", window, fields, _form):
        yield page._replace(rows=(), reached=None)
        for form in page.rows:
            whole = _with_versions(reader, form)
            yield page._replace(rows=[whole], rejects=(), reached=reached.after([form.updated]))


def images(reader: Reader, window: AnyWindow) -> Iterator[rows.Page[rows.Image]]:
    """Read images. Hidden ones are listed only if they are asked for, so there is no order of all images."""
    fields = {"fields[image]": "name,image_url,format,size,hidden,updated_at"}
    read = partial(_ordered, reader, IMAGES, "updated_at", window, fields, _image)
    for page in in_parts({"images": read, "hidden images": partial(read, "equals(hidden,true)")}):
        yield page._replace(reached=None)


def _ordered(
    reader: Reader,
    endpoint: Endpoint,
    cursor: str,
    window: AnyWindow,
    fields: Mapping[str, str],
    row: Callable[[resources.Resource], Row],
    *conditions: str,
) -> Iterator[rows.Page[Row]]:
    """Read a collection in the order of a time, and within a window of it."""
    reached = Reached()
    query = {"filter": ",".join([*conditions, *between(cursor, window)]), "sort": cursor, **fields}
    for document, rejects, read_at in reader.pages(endpoint, _PAGES, query):
        found = [row(each) for each in document.data]
        yield rows.Page(found, rejects, read_at, reached.after(each.updated for each in found))


def _with_versions(reader: Reader, form: rows.Form) -> rows.Form:
    """Read the versions of a form; none if it has been deleted in the meantime. A refusal concerns this form only."""
    endpoint = FORM_VERSIONS.of(form.id)
    query = {"fields[form-version]": "form_type,variation_name,ab_test,status,created_at,updated_at"}
    versions, rejects = list[rows.FormVersion](), list[rows.Reject]()
    try:
        for document, unreadable, _ in reader.pages(endpoint, _PAGES, query):
            versions += [_form_version(each, form.id) for each in document.data]
            rejects += unreadable
    except NotFound:
        return form
    except Refused as error:
        rejects.append(rows.Reject(msgspec.json.encode({"form": form.id}).decode(), str(error)))
    return form._replace(versions=versions, rejects=rejects)


def _text(attributes: Any, *path: str) -> str | None:
    return properties.plain_text(member(attributes, *path))


def _template(resource: resources.Resource) -> rows.Template:
    attributes = resource.attributes
    return rows.Template(
        resource.id,
        _text(attributes, "name"),
        _text(attributes, "editor_type"),
        _text(attributes, "html"),
        _text(attributes, "text"),
        moment(member(attributes, "created")),
        moment(member(attributes, "updated")),
    )


def _form(resource: resources.Resource) -> rows.Form:
    attributes = resource.attributes
    return rows.Form(
        resource.id,
        _text(attributes, "name"),
        _text(attributes, "status"),
        boolean(member(attributes, "ab_test")),
        moment(member(attributes, "created_at")),
        moment(member(attributes, "updated_at")),
    )


def _form_version(resource: resources.Resource, form_id: str) -> rows.FormVersion:
    attributes = resource.attributes
    return rows.FormVersion(
        resource.id,
        form_id,
        _text(attributes, "form_type"),
        _text(attributes, "variation_name"),
        _text(attributes, "ab_test", "variation_name"),
        _text(attributes, "status"),
        moment(member(attributes, "created_at")),
        moment(member(attributes, "updated_at")),
    )


def _image(resource: resources.Resource) -> rows.Image:
    attributes = resource.attributes
    return rows.Image(
        resource.id,
        _text(attributes, "name"),
        _text(attributes, "image_url"),
        _text(attributes, "format"),
        whole_number(member(attributes, "size")),
        boolean(member(attributes, "hidden")),
        moment(member(attributes, "updated_at")),
    )
