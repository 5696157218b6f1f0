"""The designs of an account: templates of emails, forms with their versions, and images."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sandbox.account.ids import token

_EDITORS = ("SYSTEM_DRAGGABLE", "CODE", "SIMPLE", "USER_DRAGGABLE")
_TYPES = ("popup", "flyout", "embed", "full_page", "banner")
_FORMATS = ("jpeg", "png", "gif")
_TEMPLATES, _FORMS, _IMAGES = 23, 5, 12


@dataclass(slots=True)
class Template:
    """A template of emails."""

    id: str
    name: str
    editor_type: str
    html: str
    text: str | None
    created: datetime
    updated: datetime


@dataclass(slots=True)
class FormVersion:
    """A version of a form. `ab_test` is the name of the variation in a test."""

    id: str
    form_type: str
    variation_name: str
    ab_test: str | None
    status: str
    created_at: datetime
    updated_at: datetime


@dataclass(slots=True)
class Form:
    """A form for signing up."""

    id: str
    name: str
    status: str
    ab_test: bool
    created_at: datetime
    updated_at: datetime
    versions: list[FormVersion] = field(default_factory=list)


@dataclass(slots=True)
class Image:
    """An image, and the size of its file in bytes."""

    id: str
    name: str
    image_url: str
    format: str
    size: int
    hidden: bool
    updated_at: datetime


@dataclass
class Designs:
    """Templates, forms and images, by id."""

    templates: dict[str, Template] = field(default_factory=dict)
    forms: dict[str, Form] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)


def design(account: str, seed: int, until: datetime) -> Designs:
    """Return what an account has designed."""
    templates = [_template(token("template", account, seed, at), at, until) for at in range(_TEMPLATES)]
    forms = [_form(account, seed, at, until) for at in range(_FORMS)]
    images = [_image(token("image", account, seed, at), at, until) for at in range(_IMAGES)]
    return Designs({row.id: row for row in templates}, {row.id: row for row in forms}, {row.id: row for row in images})


def _template(row_id: str, at: int, until: datetime) -> Template:
    text = f"Hi {{{{ first_name|default:'there' }}}},\nit's template {at}." if at % 3 else None
    html = f'<html><body><p class="x">Hi {{{{ person.first_name }}}}! {"🎁 & more<br>" * at}</p></body></html>'
    updated = until - timedelta(days=at % 7, seconds=at)
    return Template(row_id, f'Template "{at}"', _EDITORS[at % 4], html, text, until - timedelta(days=90), updated)


def _form(account: str, seed: int, at: int, until: datetime) -> Form:
    created, updated = until - timedelta(days=60 + at), until - timedelta(days=2 * at, hours=1)
    versions = [
        FormVersion(
            token("form-version", account, seed, f"{at}.{number}"),
            _TYPES[(at + number) % 5],
            f"Variation {number}",
            f"Variation {number}" if at % 2 else None,
            "draft" if number else "live",
            created,
            updated - timedelta(minutes=number),
        )
        for number in range(1 + at % 3)
    ]
    name, status = f"Form, {at}", "draft" if at == 3 else "live"
    return Form(token("form", account, seed, at), name, status, at % 2 == 1, created, updated, versions)


def _image(row_id: str, at: int, until: datetime) -> Image:
    url = f"https://images.example.com/{row_id}.{_FORMATS[at % 3]}"
    updated = until - timedelta(days=at, minutes=1)
    return Image(row_id, f"Image {at} 漢字", url, _FORMATS[at % 3], 10_000 + 37 * at, at % 4 == 3, updated)
