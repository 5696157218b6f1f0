"""Settings of the whole test session: no test depends on the speed of the machine or on another session of pytest."""

import atexit
import os
import shutil
from tempfile import mkdtemp

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize="CI" in os.environ,  # what fails in CI then fails everywhere
    print_blob=True,
)
settings.load_profile("project")


def pytest_configure(config: pytest.Config) -> None:
    """Use a separate temporary folder, unless --basetemp names one.

    By default all sessions share a parent folder, and each new one closes that folder to other users. When tests run as
    root, Postgres runs as another user, so a second session would stop the servers of the first.
    """
    if config.option.basetemp is None:
        config.option.basetemp = mkdtemp(prefix="klaviyo-pg-tests-")
        atexit.register(shutil.rmtree, config.option.basetemp, ignore_errors=True)
