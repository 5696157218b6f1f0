"""Documents as pages of the site: their links lead to pages, and each document is in the navigation."""

import re
from pathlib import Path, PurePosixPath

import pytest
import yaml

from tests.source import ROOT
from website.links import PAGES, for_site

DOCS = PurePosixPath("docs")
FILES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\(([^():#\s]*)#([^)\s]+)\)")
CODE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("text", "folder", "expected"),
    [
        pytest.param("[a](docs/people.md#b)", PurePosixPath(), "[a](people.md#b)", id="from the README"),
        pytest.param("![a](docs/pictures/a.png)", PurePosixPath(), "![a](pictures/a.png)", id="a picture"),
        pytest.param("[a](CONTRIBUTING.md)", PurePosixPath(), "[a](contributing.md)", id="another page"),
        pytest.param("[a](../README.md#erase-people)", DOCS, "[a](index.md#erase-people)", id="to the README"),
        pytest.param("[a](people.md)", DOCS, "[a](people.md)", id="within the documents"),
        pytest.param("[a](#b), [c](https://example.com/d)", DOCS, "[a](#b), [c](https://example.com/d)", id="as it is"),
        pytest.param("see [prefect.yaml](../prefect.yaml)", DOCS, "see prefect.yaml", id="not on the site"),
    ],
)
def test_links_lead_to_pages(text: str, folder: PurePosixPath, expected: str) -> None:
    assert for_site(text, folder) == expected


def test_each_document_is_in_the_navigation_once() -> None:
    named = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    documents = [path.name for path in (ROOT / "docs").glob("*.md")]
    assert sorted(named) == sorted([*documents, *PAGES.values()])


def anchors(file: Path) -> set[str]:
    """Return the anchors of the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", file.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_links_lead_to_headings(file: Path) -> None:
    links = LINK.findall(CODE.sub("", file.read_text("utf-8")))
    assert [
        (target, anchor)
        for target, anchor in links
        if anchor not in anchors((file.parent / target).resolve() if target else file)
    ] == []


def test_links_to_headings_are_recognized() -> None:
    assert LINK.findall("[a](b.md#c), [d](#e-f), [g](https://example.com/h#i)") == [("b.md", "c"), ("", "e-f")]


def test_the_configuration_names_the_extra_that_installs_the_generator() -> None:
    assert "docs = [" in (ROOT / "pyproject.toml").read_text()
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text().replace("!!python/name:", ""))["docs_dir"] == "docs"
