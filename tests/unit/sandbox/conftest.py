"""Accounts for the unit tests of the sandbox."""

from collections.abc import Callable

import pytest

from sandbox.account import Account, Options, generate

OPTIONS = Options(members=600, events=20_000, days=30)


@pytest.fixture(scope="session")
def account() -> Account:
    """An account that tests must not change."""
    return generate(OPTIONS)


@pytest.fixture
def make_account() -> Callable[[], Account]:
    """A function that generates a small account for a test to change."""
    return lambda: generate(Options(members=60, events=500, days=10))
