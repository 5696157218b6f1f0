"""Documents as pages of the site: their links lead to pages, and each document is in the navigation."""

import re
from pathlib import PurePosixPath

import pytest
import yaml

from tests.source import ROOT
from website.links import PAGES, for_site

DOCS = PurePosixPath("docs")


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


def test_the_configuration_names_the_extra_that_installs_the_generator() -> None:
    assert "docs = [" in (ROOT / "pyproject.toml").read_text()
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text().replace("!!python/name:", ""))["docs_dir"] == "docs"
