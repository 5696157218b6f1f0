"""Frames for templates, forms with their versions, and images."""

from collections.abc import Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import loads
from klaviyo_pg.catalogue.types import BOOLEAN, INTEGER, TEXT, TIMESTAMP
from transforms.clean import TIMES, Cleaned, by_id, cleaned_rows, conformed, same
from transforms.keys import row_key

_TEMPLATE = {**same(TEXT, "id", "name", "editor_type", "html", "text"), **TIMES}
_FORM = {**same(TEXT, "id", "name", "status"), **same(BOOLEAN, "is_ab_test"), **TIMES}
_VERSION = {
    **same(TEXT, "id", "form_id", "form_type", "variation_name", "ab_test_variation", "status"),
    **TIMES,
}
_IMAGE = {
    **same(TEXT, "id", "name", "image_url", "format"),
    **same(INTEGER, "size"),
    **same(BOOLEAN, "is_hidden"),
    "updated_at": ("updated", TIMESTAMP),
}


def templates(templates: Sequence[rows.Template], integration_id: str) -> Cleaned:
    """Return the frame for the load TEMPLATES."""
    return by_id(cleaned_rows(templates, _TEMPLATE), loads.TEMPLATES, integration_id)


def forms(forms: Sequence[rows.Form], integration_id: str) -> Cleaned:
    """Return the frame for the load FORMS."""
    return by_id(cleaned_rows(forms, _FORM), loads.FORMS, integration_id)


def form_versions(forms: Sequence[rows.Form], integration_id: str) -> Cleaned:
    """Return the frame for the load FORM_VERSIONS.

    Each form also has a row without a key. It is not stored: it marks the form's versions as complete. Forms whose
    versions are unknown, or could not all be read, have none.
    """
    raw = cleaned_rows([version for form in forms for version in form.versions or ()], _VERSION)
    form_key = row_key(integration_id, pl.col("form_id"))
    versions = by_id(raw, loads.FORM_VERSIONS, integration_id, form_key=form_key)
    complete = [form.id for form in forms if form.versions is not None and not any(each.hides for each in form.rejects)]
    markers = pl.DataFrame({"form_id": complete}, {"form_id": TEXT.polars})
    return versions._replace(frame=pl.concat([conformed(markers, loads.FORM_VERSIONS), versions.frame]))


def images(images: Sequence[rows.Image], integration_id: str) -> Cleaned:
    """Return the frame for the load IMAGES."""
    return by_id(cleaned_rows(images, _IMAGE), loads.IMAGES, integration_id)
