"""Pins: the dependencies of the image by version and hash, the actions of CI by commit."""

import re
import tomllib

import pytest

from tests.driver import ROOT

PINNED = re.compile(r"^([\w.\-]+)(?:\[[\w,\-]+\])?==([^\s;]+)", re.MULTILINE)
CONSTRAINTS = (ROOT / "constraints.txt").read_text()


def canonical(name: str) -> str:
    """Return a package's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Return the versions that a requirements file pins, by package."""
    return {canonical(name): version for name, version in PINNED.findall(text)}


def test_the_image_has_the_tested_versions() -> None:
    image, tested = pins((ROOT / "requirements.txt").read_text()), pins(CONSTRAINTS)
    only_before_python_3_11_3 = {"async-timeout"}
    assert {name: version for name, version in image.items() if tested.get(name) != version}.keys() <= (
        only_before_python_3_11_3
    )


def test_the_image_has_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {canonical(re.split(r"[\[<>=!~;\s]", each, maxsplit=1)[0]) for each in project["dependencies"]}
    assert named <= pins((ROOT / "requirements.txt").read_text()).keys()


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-inventory.txt"])
def test_every_pinned_version_has_hashes(file: str) -> None:
    blocks = re.split(r"\n(?=\S)", (ROOT / file).read_text())
    pinned = [block for block in blocks if not block.startswith("#")]
    assert pinned
    assert not [block for block in pinned if not re.search(r"--hash=sha256:[0-9a-f]{64}", block)]


def test_actions_are_pinned_by_commit() -> None:
    used = re.findall(r"uses: (\S+)", (ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert used
    assert not [each for each in used if not re.fullmatch(r"[\w\-/]+@[0-9a-f]{40}", each)]
