"""Templates, forms and images, from pages of the current dialect to rows and frames."""

import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from klaviyo_pg.catalogue import Load, Table, loads, on_request, types
from klaviyo_pg.errors import NotFound, Refused
from klaviyo_pg.klaviyo.current import records
from klaviyo_pg.klaviyo.current.resources import Resource
from klaviyo_pg.rows import Form, FormVersion, Image, Reject, Template
from klaviyo_pg.windows import FULL_READ, OpenWindow
from pipeline.streams.stream import by_rows
from tests.any_page import ACCOUNT, source
from transforms import content
from transforms import records as transformed

AT = "2026-07-01T00:00:00+00:00"
JULY = datetime(2026, 7, 1, tzinfo=UTC)
TIMES = {"created_at": AT, "updated_at": AT}
VERSION = {
    "form_type": "hologram",
    "variation_name": "A",
    "ab_test": {"variation_name": "B"},
    "status": "live",
    **TIMES,
}


def body(*rows: object) -> bytes:
    return json.dumps({"data": rows, "links": {"next": None}}).encode()


ODD = [pytest.param({}, id="id only"), pytest.param({"attributes": None}, id="null"), pytest.param({"attributes": []})]


@pytest.mark.parametrize("row", ODD)
def test_everything_is_read_whatever_is_missing(row: dict[str, Any]) -> None:
    """A record without an ID is rejected. Images are read in two parts, of which each has the record."""
    it = source("current", body({"id": "X", **row}, {"id": 7}), {"/form-versions": body({"id": "V", **row}, {})})
    [page] = it.templates(FULL_READ)
    assert (list(page.rows), len(page.rejects)) == ([Template("X")], 1)
    assert [(list(page.rows), len(page.rejects)) for page in it.images(FULL_READ)] == [([Image("X")], 1)] * 2
    pages = list(it.forms(FULL_READ))
    [form] = [form for page in pages for form in page.rows]
    assert form._replace(rejects=()) == Form("X", versions=[FormVersion("V", "X")])
    assert (len(form.rejects), sum(len(page.rejects) for page in pages)) == (1, 1)


def test_values_of_templates_and_images_are_read() -> None:
    """Values of another type than expected count as missing, and unknown words are kept."""
    row: dict[str, object] = {"name": "Hi", "editor_type": "NEW", "html": "<p>", "text": None}
    row |= {"created": AT, "updated": "soon"}
    [page] = source("current", body({"id": "T", "attributes": row})).templates(FULL_READ)
    assert list(page.rows) == [Template("T", "Hi", "NEW", "<p>", None, JULY, None)]
    row = {"name": 5, "image_url": "https://x", "format": "webp", "size": 10.5, "hidden": "no", "updated_at": AT}
    images = next(source("current", body({"id": "I", "attributes": row})).images(FULL_READ))
    assert list(images.rows) == [Image("I", "5", "https://x", "webp", None, None, JULY)]


def test_forms_have_their_versions() -> None:
    row = {"name": "Form", "status": "live", "ab_test": True, **TIMES}
    it = source(
        "current", body({"id": "F", "attributes": row}), {"F/form-versions": body({"id": "V", "attributes": VERSION})}
    )
    [form] = [form for page in it.forms(FULL_READ) for form in page.rows]
    version = FormVersion("V", "F", "hologram", "A", "B", "live", JULY, JULY)
    assert form == Form("F", "Form", "live", True, JULY, JULY, [version], [])
    frames = content.forms([form], ACCOUNT).frame, content.form_versions([form], ACCOUNT).frame
    assert [frame.schema for frame in frames] == [loads.FORMS.schema, loads.FORM_VERSIONS.schema]
    assert frames[1].select("id", "form_id", "ab_test_variation").rows() == [(None, "F", None), ("V", "F", "B")]


def test_each_form_is_a_checkpoint() -> None:
    """Its versions have been read as well. One without a time leaves no checkpoint after it."""
    rows = [{"id": f"F{day}", "attributes": {"updated_at": f"2026-07-0{day}T00:00:00Z"}} for day in (1, 2, 3)]
    it = source("current", body(*rows, {"id": "F4"}), {"/form-versions": body()})
    groups = list(by_rows(it.forms(FULL_READ), 2))
    assert [(group.rows, group.reached) for group in groups] == [(2, JULY + timedelta(days=1)), (2, None)]
    assert [group.reached for group in by_rows(it.forms(FULL_READ), 4)] == [None]


def test_a_form_whose_versions_are_refused_is_stored_without_them() -> None:
    """The forms after it are read, and the refusal is a reject. A form that was deleted in the meantime has none."""
    refused, gone, rest = "F1/form-versions", "F2/form-versions", "/form-versions"
    answers: dict[str, bytes | Exception] = {refused: Refused("Not this one."), gone: NotFound("Gone.")}
    answers[rest] = body({"id": "V"})
    it = source("current", body({"id": "F1"}, {"id": "F2"}, {"id": "F3"}), answers)
    forms = [form for page in it.forms(FULL_READ) for form in page.rows]
    assert [(form.id, len(form.versions or ()), len(form.rejects)) for form in forms] == [
        ("F1", 0, 1),
        ("F2", 0, 0),
        ("F3", 1, 0),
    ]
    [reject] = forms[0].rejects
    assert (reject.raw, reject.reason, reject.hides) == ('{"form":"F1"}', "Not this one.", True)
    frame = content.form_versions(forms, ACCOUNT).frame
    assert frame.select("key", "form_id").rows()[0] == (None, "F3")
    assert frame["key"].null_count() == 1


@pytest.mark.parametrize(
    ("form", "markers"),
    [
        pytest.param(Form("F", versions=[]), 1, id="no versions"),
        pytest.param(Form("F"), 0, id="unknown"),
        pytest.param(Form("F", versions=[], rejects=[Reject("{}", "No ID.")]), 0, id="unreadable"),
        pytest.param(Form("F", versions=[], rejects=[Reject("{}", "Odd.", hides=False)]), 1, id="repaired"),
    ],
)
def test_a_row_without_a_key_says_that_all_versions_are_there(form: Form, markers: int) -> None:
    assert content.form_versions([form], ACCOUNT).frame["key"].to_list() == [None] * markers


def test_no_rows_make_empty_frames() -> None:
    """Of one ID, the last row stays."""
    for load, frame in (
        (loads.TEMPLATES, content.templates([], ACCOUNT).frame),
        (loads.FORMS, content.forms([], ACCOUNT).frame),
        (loads.FORM_VERSIONS, content.form_versions([], ACCOUNT).frame),
        (loads.IMAGES, content.images([], ACCOUNT).frame),
    ):
        assert frame.is_empty() and dict(frame.schema) == load.schema
    twice = content.templates([Template("T", "a"), Template("T\0", "b")], ACCOUNT)
    assert (twice.frame["name"].to_list(), twice.nul_characters) == (["b"], 1)


def test_the_legacy_dialect_has_none_of_them() -> None:
    it = source("legacy", b"{}")
    assert [
        *it.templates(FULL_READ),
        *it.forms(FULL_READ),
        *it.images(FULL_READ),
        *it.records("coupons", FULL_READ),
    ] == []


VALUES = {
    types.TEXT: "word",
    types.TIMESTAMP: AT,
    types.BOOLEAN: False,
    types.INTEGER: 5,
    types.NUMERIC: 1.5,
    types.JSON: [1],
}


def described(table: Table) -> dict[str, str]:
    """Return the columns that are read, with the path that the catalogue documents."""
    paths = {column.name: column.current for column in Load(table).columns}
    return {name: path for name, path in paths.items() if path not in ("id", "computed")}


@pytest.mark.parametrize("table", on_request.TABLES, ids=lambda table: table.name)
def test_tables_on_request_have_the_columns_that_are_read(table: Table) -> None:
    """Each is read at the path that the catalogue documents. What is missing or has another type is null."""
    fields = records.FIELDS[table.name]
    assert set(fields) == set(described(table))
    empty = records.record(table.name, Resource("X"))
    assert set(empty.values.values()) <= {None}
    frame = transformed.records([empty], Load(table), ACCOUNT).frame
    assert frame.schema == Load(table).schema and frame["key"].null_count() == 0
    kinds = {column.name: column.type for column in table.columns}
    for name, path in described(table).items():
        related = {path.removeprefix("relationships."): {"data": {"id": "R"}}}
        value = ["word"] if name == "ranked_channels" else VALUES[kinds[name]]
        assert fields[name](Resource("X", None, nested(path, value), related)) is not None, name
        odd = fields[name](Resource("X", None, nested(path, {"": [True]}), {}))
        assert odd is None or kinds[name] in (types.TEXT, types.JSON), name


def nested(path: str, value: object) -> object:
    for member in reversed(path.split(".")):
        value = {member: value}
    return value


def test_a_push_token_is_never_kept() -> None:
    """Neither is a record that has one and is unreadable."""
    token = "secret-of-the-device"
    answer = body({"id": "T", "attributes": {"token": token}}, {"id": 7, "attributes": {"token": token}})
    [page] = source("current", answer).records("push_tokens", FULL_READ)
    assert page.rows[0].values["token_hash"] == sha256(token.encode()).hexdigest()
    assert len(page.rejects) == 1 and token not in str(page)


def test_reviews_are_read_back_to_the_last_ones_that_are_known() -> None:
    """The API cannot filter them by the time of their last change. All of them are read from the first one on."""
    rows = [{"id": f"{day}", "attributes": {"updated": f"2026-07-0{day}T00:00:00+00:00"}} for day in (3, 2)]
    first = json.dumps({"data": rows, "links": {"next": "https://x/api/reviews?page"}}).encode()
    last = body({"id": "1", "attributes": {"updated": AT}})
    known = OpenWindow(datetime(2026, 7, 4, tzinfo=UTC))
    found = source("current", first, {"?page": last}).records("reviews", known)
    assert [row.id for page in found for row in page.rows] == ["3", "2"]
    found = source("current", first, {"?page": last}).records("reviews", OpenWindow(JULY + timedelta(days=1)))
    assert [row.id for page in found for row in page.rows] == ["3", "2", "1"]


def test_variants_have_the_items_that_refer_to_them() -> None:
    variants = [{"id": "V", "type": "catalog-variant", "attributes": {"price": "7"}}, {"id": "W", "type": "other"}]
    item = {"id": "I", "relationships": {"variants": {"data": [{"id": "V"}, None]}}}
    answer = json.dumps({"data": [item], "included": variants}).encode()
    [page] = source("current", answer).records("catalog_items", FULL_READ)
    assert [(row.table, row.id) for row in page.rows] == [("catalog_items", "I"), ("catalog_variants", "V")]
    assert (page.rows[1].values["item_id"], page.rows[1].values["price"]) == ("I", "7.0")
