"""Templates, forms and images: read by the time of their last change, and now and then in full."""

from collections.abc import Mapping, Sequence
from functools import partial

from klaviyo_pg.catalogue import loads
from klaviyo_pg.rows import Form, Image, Reject, Template
from pipeline.batch import CleanedFrames
from pipeline.streams.collections import collection
from pipeline.streams.stream import Reading
from transforms import content


def _templates(reading: Reading, rows: list[Template]) -> CleanedFrames:
    return [(loads.TEMPLATES, content.templates(rows, reading.integration_id))]


def _forms(reading: Reading, rows: list[Form]) -> CleanedFrames:
    return [
        (loads.FORMS, content.forms(rows, reading.integration_id)),
        (loads.FORM_VERSIONS, content.form_versions(rows, reading.integration_id)),
    ]


def _images(reading: Reading, rows: list[Image]) -> CleanedFrames:
    return [(loads.IMAGES, content.images(rows, reading.integration_id))]


def _unreadable_versions(forms: list[Form]) -> Mapping[str, Sequence[Reject]]:
    """Return the rejects of versions. They hide no stored version, because their form has no marker."""
    return {"form_versions": [reject._replace(hides=False) for form in forms for reject in form.rejects]}


_content = partial(
    collection,
    batch_rows=200,  # a template can have a megabyte
    schedule="every daily run, from a day before its watermark on; every week in full",
)
TEMPLATES = _content(
    "templates", lambda source, window, _: source.templates(window), _templates, loads.TEMPLATES, cursor="updated"
)
FORMS = _content(
    "forms",
    lambda source, window, _: source.forms(window),
    _forms,
    loads.FORMS,
    loads.FORM_VERSIONS,
    rejects=_unreadable_versions,
    cursor="updated_at",
)
IMAGES = _content("images", lambda source, window, _: source.images(window), _images, loads.IMAGES, cursor="updated_at")
STREAMS = (TEMPLATES, FORMS, IMAGES)
