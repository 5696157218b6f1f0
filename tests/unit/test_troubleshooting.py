"""The page for troubleshooting: every message that it quotes is one of the code, so that a search for it succeeds."""

import ast
import re
from collections.abc import Iterator

import pytest

from klaviyo_pg import errors
from tests.driver import ROOT

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
API_KEY = (ROOT / "docs" / "api-key.md").read_text("utf-8")
MESSAGES = re.findall(r"^\| `([^`]+)` \|", PAGE, re.MULTILINE)
SCOPES = re.compile(r"\b[a-z]+(?:-[a-z]+)*:read\b")


def texts(tree: ast.AST) -> Iterator[str]:
    """Yield the texts of a module, without docstrings. A placeholder is “…”."""
    nodes = list(ast.walk(tree))
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(each.value) if isinstance(each, ast.Constant) else "…" for each in node.values)


@pytest.fixture(scope="module")
def code() -> list[str]:
    """All texts in the code that can be a message, with one blank for each run of white space."""
    files = [path for name in ("klaviyo_pg", "pipeline", "tasks", "transforms") for path in (ROOT / name).rglob("*.py")]
    found = [text for path in files for text in texts(ast.parse(path.read_text("utf-8")))]
    found += [each.__doc__ or "" for each in vars(errors).values() if isinstance(each, type)]  # the default messages
    return [" ".join(text.split()) for text in found if " " in text]


def is_quoted(message: str, text: str) -> bool:
    """Return whether a text of the code has the pieces of a message in their order."""
    at = 0
    for piece in filter(None, (each.strip(" .:(),…") for each in message.split("…"))):
        at = text.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return True


@pytest.mark.parametrize("message", MESSAGES)
def test_each_message_is_one_of_the_code(code: list[str], message: str) -> None:
    assert any(is_quoted(message, text) for text in code)


def test_a_message_that_is_not_in_the_code_is_noticed(code: list[str]) -> None:
    assert not any(is_quoted("The database user lacks a … banana", text) for text in code)


def test_a_docstring_is_no_message() -> None:
    source = 'def work():\n    """Say that it failed."""\n    raise ValueError("It failed.")'
    assert list(texts(ast.parse(source))) == ["It failed."]


def test_each_scope_is_named_with_what_it_is_for(code: list[str]) -> None:
    sources = (ROOT / "klaviyo_pg" / "klaviyo" / "current").rglob("*.py")
    needed = {scope for path in sources for scope in SCOPES.findall(path.read_text("utf-8"))}
    assert needed == set(SCOPES.findall(API_KEY))
