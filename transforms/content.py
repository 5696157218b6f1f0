"""Frames for templates, forms with their versions, and images."""

from collections.abc import Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import loads
from transforms.clean import Cleaned, cleaned, conformed, last_by
from transforms.keys import row_key

_TEXT, _TIME = pl.String(), pl.Datetime("us", "UTC")
_TEMPLATE = {
    **dict.fromkeys(("id", "name", "editor_type", "html", "text"), _TEXT),
    **dict.fromkeys(("created_at", "updated_at"), _TIME),
}
_FORM = {
    **dict.fromkeys(("id", "name", "status"), _TEXT),
    "is_ab_test": pl.Boolean(),
    **dict.fromkeys(("created_at", "updated_at"), _TIME),
}
_VERSION = {
    **dict.fromkeys(("id", "form_id", "form_type", "variation_name", "ab_test_variation", "status"), _TEXT),
    **dict.fromkeys(("created_at", "updated_at"), _TIME),
}
_IMAGE = {
    **dict.fromkeys(("id", "name", "image_url", "format"), _TEXT),
    "size": pl.Int64(),
    "is_hidden": pl.Boolean(),
    "updated_at": _TIME,
}


def templates(templates: Sequence[rows.Template], integration_id: str) -> Cleaned:
    """Return the frame for the load TEMPLATES."""
    raw = pl.DataFrame(templates, _TEMPLATE, orient="row").pipe(cleaned)
    return Cleaned(conformed(_keyed(raw.frame, integration_id), loads.TEMPLATES), raw.nul_characters)


def forms(forms: Sequence[rows.Form], integration_id: str) -> Cleaned:
    """Return the frame for the load FORMS."""
    raw = pl.DataFrame([each[: len(_FORM)] for each in forms], _FORM, orient="row").pipe(cleaned)
    return Cleaned(conformed(_keyed(raw.frame, integration_id), loads.FORMS), raw.nul_characters)


def form_versions(forms: Sequence[rows.Form], integration_id: str) -> Cleaned:
    """Return the frame for the load FORM_VERSIONS.

    Each form also has a row without a key. It is not stored: it marks the form's versions as complete. Forms whose
    versions are unknown, or could not all be read, have none.
    """
    found = [version for form in forms for version in form.versions or ()]
    raw = pl.DataFrame(found, _VERSION, orient="row").pipe(cleaned)
    complete = [form.id for form in forms if form.versions is not None and not any(each.hides for each in form.rejects)]
    markers = pl.DataFrame({"form_id": complete}, {"form_id": _TEXT})
    keyed = _keyed(raw.frame, integration_id).with_columns(form_key=row_key(integration_id, pl.col("form_id")))
    parts = [conformed(markers, loads.FORM_VERSIONS), conformed(keyed, loads.FORM_VERSIONS)]
    return Cleaned(pl.concat(parts), raw.nul_characters)


def images(images: Sequence[rows.Image], integration_id: str) -> Cleaned:
    """Return the frame for the load IMAGES."""
    raw = pl.DataFrame(images, _IMAGE, orient="row").pipe(cleaned)
    return Cleaned(conformed(_keyed(raw.frame, integration_id), loads.IMAGES), raw.nul_characters)


def _keyed(frame: pl.DataFrame, integration_id: str) -> pl.DataFrame:
    return frame.pipe(last_by, "id").with_columns(key=row_key(integration_id, pl.col("id")))
