"""Frames for exclusions, list memberships, sweeps of lists, and suppressions that concern one list."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import loads
from transforms.clean import Cleaned, cleaned, conformed, last_by
from transforms.keys import md5

_TIME = pl.Datetime("us", "UTC")
_EXCLUSION = {"email": pl.String(), "reason": pl.String(), "created_at": _TIME}
_MEMBERSHIP = {"list_id": pl.String(), "member_id": pl.String(), "created_at": _TIME, "is_subscribed": pl.Boolean()}
_SUPPRESSION = {"list_id": pl.String(), "member_id": pl.String(), "changed_at": _TIME}
_NO_CHANGES = pl.DataFrame(schema=loads.SUBSCRIPTION_CHANGES.schema)


def exclusions(exclusions: Sequence[rows.Exclusion], account_id: str | None) -> Cleaned:
    """Return the frame for the loads STG_MEMBER_EXCLUSIONS and MEMBER_EXCLUSIONS, which have the same columns.

    Of several reasons for one address, the one with the latest timestamp stays; if several have it, the last by name.
    """
    raw = cleaned(pl.DataFrame(exclusions, _EXCLUSION, orient="row"))
    frame = raw.frame.with_columns(_sync_id=md5(pl.col("email")), _account_id=pl.lit(account_id, pl.String()))
    latest = frame.sort("created_at", "reason", nulls_last=False).pipe(last_by, "_sync_id")
    return Cleaned(conformed(latest, loads.STG_MEMBER_EXCLUSIONS), raw.nul_characters)


def memberships(memberships: Sequence[rows.Membership], account_id: str | None) -> Cleaned:
    """Return the frame for the load STG_MEMBER_LISTS."""
    raw = cleaned(pl.DataFrame(memberships, _MEMBERSHIP, orient="row"))
    frame = raw.frame.with_columns(
        _sync_id=md5(pl.col("list_id") + ":" + pl.col("member_id")), _account_id=pl.lit(account_id, pl.String())
    )
    return Cleaned(conformed(frame.pipe(last_by, "_sync_id"), loads.STG_MEMBER_LISTS), raw.nul_characters)


def swept(list_id: str, sweep: str, members: Iterable[str], looked_up: Iterable[str]) -> pl.DataFrame:
    """Return the frame for the load SWEPT_MEMBERS: the ids of a list's members, and the ids that were looked up."""
    answers = [(list_id, sweep, each, "found") for each in members]
    answers += [(list_id, sweep, each, "asked") for each in looked_up]
    frame = pl.DataFrame(answers, loads.SWEPT_MEMBERS.schema, orient="row").pipe(cleaned).frame
    return frame.pipe(last_by, "member_id", "answer").pipe(conformed, loads.SWEPT_MEMBERS)


def suppressions(suppressions: Sequence[tuple[str, str, datetime | None]]) -> pl.DataFrame:
    """Return the frame for the load SUBSCRIPTION_CHANGES, from (list id, profile id, time of the suppression)."""
    if not suppressions:
        return _NO_CHANGES
    raw = cleaned(pl.DataFrame(suppressions, _SUPPRESSION, orient="row"))
    frame = raw.frame.with_columns(id=pl.col("list_id") + ":" + pl.col("member_id"), change=pl.lit("suppressed"))
    return frame.pipe(last_by, "member_id", "id").pipe(conformed, loads.SUBSCRIPTION_CHANGES)
