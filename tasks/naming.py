"""Names in Prefect, of runs and of artifacts: with the account, since one deployment serves several."""

import hashlib
import os
import re
from contextlib import suppress
from datetime import UTC, datetime

from prefect.runtime import flow_run

from klaviyo_pg import env_file
from klaviyo_pg.names import PREFIX


def run_name() -> str:
    """Return the flow's name, the account that its parameters or the environment name, and the day (UTC)."""
    parameters = flow_run.parameters
    account = parameters.get("integration") or parameters.get("klaviyo") or _account()
    day = flow_run.scheduled_start_time or datetime.now(UTC)
    return f"{flow_run.flow_name} · {account or 'default'} · {day.astimezone(UTC):%Y-%m-%d}"


def _account() -> str | None:
    """Return the account in the environment or in .env, without the other settings, which may be wrong."""
    in_file: dict[str, str | None] = {}
    with suppress(OSError, UnicodeDecodeError):
        in_file = env_file.variables()
    name = "KLAVIYO_INTEGRATION"
    values = (source.get(each) for each in (PREFIX + name, name) for source in (os.environ, in_file))
    return next(filter(None, values), None)


def artifact_key(what: str, account: str) -> str:
    """Return the key of an artifact of one account. Prefect allows lowercase letters, digits and dashes."""
    slug = re.sub("[^a-z0-9]+", "-", account.lower()).strip("-")
    if slug != account:  # other accounts may look the same then
        slug = f"{slug}-{hashlib.sha256(account.encode()).hexdigest()[:6]}".strip("-")
    return f"{what}-{slug}"
