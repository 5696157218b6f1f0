"""Exclusions and list memberships: rows into frames."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import polars as pl

from klaviyo_pg.catalogue import loads
from klaviyo_pg.klaviyo import rows
from transforms.clean import Cleaned, cleaned, conformed, last_by
from transforms.keys import md5

_TIME = pl.Datetime("us", "UTC")
_EXCLUSION = {"email": pl.String(), "reason": pl.String(), "created_at": _TIME}
_MEMBERSHIP = {"list_id": pl.String(), "member_id": pl.String(), "created_at": _TIME, "is_subscribed": pl.Boolean()}
_SUPPRESSION = {"list_id": pl.String(), "member_id": pl.String(), "changed_at": _TIME}
_NO_CHANGES = pl.DataFrame(schema=loads.SUBSCRIPTION_CHANGES.schema)


def exclusions(found: Sequence[rows.Exclusion], account_id: str | None) -> Cleaned:
    """Loads STG_MEMBER_EXCLUSIONS and MEMBER_EXCLUSIONS, which have the same columns.

    Of several reasons for one address the one with the latest timestamp stays, of equal ones the last by name.
    """
    raw = cleaned(pl.DataFrame(found, _EXCLUSION, orient="row"))
    frame = raw.frame.with_columns(_sync_id=md5(pl.col("email")), _account_id=pl.lit(account_id, pl.String()))
    latest = frame.sort("created_at", "reason", nulls_last=False).pipe(last_by, "_sync_id")
    return Cleaned(conformed(latest, loads.STG_MEMBER_EXCLUSIONS), raw.nul_characters)


def memberships(found: Sequence[rows.Membership], account_id: str | None) -> Cleaned:
    """Load STG_MEMBER_LISTS."""
    raw = cleaned(pl.DataFrame(found, _MEMBERSHIP, orient="row"))
    frame = raw.frame.with_columns(
        _sync_id=md5(pl.col("list_id") + ":" + pl.col("member_id")), _account_id=pl.lit(account_id, pl.String())
    )
    return Cleaned(conformed(frame.pipe(last_by, "_sync_id"), loads.STG_MEMBER_LISTS), raw.nul_characters)


def swept(list_id: str, sweep: str, found: Iterable[str], asked: Iterable[str]) -> pl.DataFrame:
    """Load SWEPT_MEMBERS: the ids of those whom a list holds, and of those whom it was asked for."""
    answers = [(list_id, sweep, each, "found") for each in found] + [(list_id, sweep, each, "asked") for each in asked]
    frame = pl.DataFrame(answers, loads.SWEPT_MEMBERS.schema, orient="row").pipe(cleaned).frame
    return frame.pipe(last_by, "member_id", "answer").pipe(conformed, loads.SWEPT_MEMBERS)


def suppressions(found: Sequence[tuple[str, str, datetime | None]]) -> pl.DataFrame:
    """Load SUBSCRIPTION_CHANGES, of (list id, profile id, since when): whom a list must not write to."""
    if not found:
        return _NO_CHANGES
    raw = cleaned(pl.DataFrame(found, _SUPPRESSION, orient="row"))
    frame = raw.frame.with_columns(id=pl.col("list_id") + ":" + pl.col("member_id"), change=pl.lit("suppressed"))
    return frame.pipe(last_by, "member_id", "id").pipe(conformed, loads.SUBSCRIPTION_CHANGES)
