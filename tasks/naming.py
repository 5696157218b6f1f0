"""Names in Prefect, of runs and of artifacts: with the account, since one deployment serves several."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from klaviyo_pg import env_file
from klaviyo_pg.errors import BadSettings
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres.ledgers.backfill_ledger import BackfillChunk
from tasks.blocks import name_of


def run_name() -> str:
    """Return the flow's name, the account that its parameters or the environment name, and the day (UTC)."""
    parameters = flow_run.parameters
    account = parameters.get("integration") or _block(parameters) or _account()
    day = flow_run.scheduled_start_time or datetime.now(UTC)
    return f"{flow_run.flow_name} · {account or 'default'} · {day.astimezone(UTC):%Y-%m-%d}"


def part_name(account: str, chunks: Sequence[BackfillChunk]) -> str:
    """Return the name of the run of a part of a distributed backfill: the account, its chunks and their days (UTC)."""
    first, last = min(each.window_start for each in chunks), max(each.window_end for each in chunks)
    return f"backfill_part · {account} · {counted(len(chunks), 'chunk')} from {first:%Y-%m-%d} to {last:%Y-%m-%d}"


def _account() -> str | None:
    """Return the account in the environment or in .env, without the other settings, which may be wrong."""
    with suppress(OSError, UnicodeDecodeError):
        found = env_file.first("KLAVIYO_INTEGRATION")
        return found[1] if found else None
    return None


def add_rows(rows: int) -> None:
    """Add the number of rows to the name of the run, since Prefect's lists of runs show no message."""
    with get_client(sync_client=True) as client:
        client.update_flow_run(flow_run.id, name=f"{flow_run.name} · {counted(rows, 'row')}")


def _block(parameters: Mapping[str, Any]) -> str | None:
    """Return the name of the account's block; None without one. The run itself reports a block that is missing."""
    klaviyo = parameters.get("klaviyo")
    with suppress(BadSettings):
        return None if klaviyo is None else name_of(klaviyo)
    return None


def slug(account: str) -> str:
    """Return the name of an account in lowercase letters, digits and dashes. No two accounts have the same."""
    shown = re.sub("[^a-z0-9]+", "-", account.lower()).strip("-")
    if shown != account:  # other accounts may look the same then
        shown = f"{shown}-{hashlib.sha256(account.encode()).hexdigest()[:6]}".strip("-")
    return shown


def artifact_key(what: str, account: str) -> str:
    """Return the key of an artifact of one account. Prefect allows lowercase letters, digits and dashes."""
    return f"{what}-{slug(account)}"
