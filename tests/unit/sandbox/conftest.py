"""Accounts for the unit tests of the sandbox."""

from collections.abc import Callable

import pytest

from sandbox.account import Account, Options
from sandbox.generate import generate

OPTIONS = Options(members=600, events=20_000, days=30)


@pytest.fixture(scope="session")
def account() -> Account:
    """An account to read; nobody may change it."""
    return generate(OPTIONS)


@pytest.fixture
def fresh() -> Callable[[], Account]:
    """Makes small accounts that a test may change."""
    return lambda: generate(Options(members=60, events=500, days=10))
