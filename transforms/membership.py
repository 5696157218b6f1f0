"""Frames for exclusions, members of lists and segments, their sweeps, and suppressions that concern one list."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import loads
from transforms.clean import Cleaned, cleaned, conformed, last_by
from transforms.keys import md5, row_key

_TIME = pl.Datetime("us", "UTC")
_EXCLUSION = {"email": pl.String(), "reason": pl.String(), "created_at": _TIME, "member_id": pl.String()}
_MEMBERSHIP = {"list_id": pl.String(), "member_id": pl.String(), "created_at": _TIME, "is_subscribed": pl.Boolean()}
_SEGMENT_MEMBER = {"segment_id": pl.String(), "member_id": pl.String(), "joined_at": _TIME}
_SUPPRESSION = {"list_id": pl.String(), "member_id": pl.String(), "suppressed_at": _TIME, "reason": pl.String()}

Suppressed = tuple[str | None, str, datetime | None, str | None]
"""A list id (None: no list), a profile id, and the time and the reason of the suppression, as in rows.Suppression."""


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


def segment_members(memberships: Sequence[rows.Membership], integration_id: str) -> Cleaned:
    """Return the frame for the load SEGMENT_MEMBERS."""
    found = [each[: len(_SEGMENT_MEMBER)] for each in memberships]
    raw = pl.DataFrame(found, _SEGMENT_MEMBER, orient="row").pipe(cleaned)
    frame = raw.frame.with_columns(id=pl.col("segment_id") + ":" + pl.col("member_id")).pipe(last_by, "id")
    keys = {"key": "id", "segment_key": "segment_id"}
    frame = frame.with_columns(
        *(row_key(integration_id, pl.col(name)).alias(key) for key, name in keys.items()),
        member_key=md5(pl.col("member_id")),
    )
    return Cleaned(conformed(frame, loads.SEGMENT_MEMBERS), raw.nul_characters)


def swept(list_id: str, sweep: str, answers: Iterable[tuple[str, str]]) -> pl.DataFrame:
    """Return the frame for the load SWEPT_MEMBERS, from (profile id, answer)."""
    found = [(list_id, sweep, *each) for each in answers]
    frame = pl.DataFrame(found, loads.SWEPT_MEMBERS.schema, orient="row").pipe(cleaned).frame
    return frame.pipe(last_by, "member_id", "answer").pipe(conformed, loads.SWEPT_MEMBERS)


def suppressions(suppressions: Sequence[Suppressed]) -> Cleaned:
    """Return the frame for the load LIST_SUPPRESSIONS or LIST_SUPPRESSIONS_OF_PEOPLE, which have the same columns."""
    raw = cleaned(pl.DataFrame(suppressions, _SUPPRESSION, orient="row"))
    frame = raw.frame.pipe(last_by, "member_id", "list_id").pipe(conformed, loads.LIST_SUPPRESSIONS)
    return Cleaned(frame, raw.nul_characters)


def suppressions_of_people(people: Mapping[str, Sequence[rows.Suppression] | None]) -> Cleaned:
    """Return the frame for the load LIST_SUPPRESSIONS_OF_PEOPLE, from all suppressions of each person, by profile id.

    A person without suppressions has one row without a list. It is not stored: it says that there are none. People
    whose suppressions are unknown (None) are left out.
    """
    found: list[Suppressed] = []
    for member_id, of_person in people.items():
        if of_person is not None:
            found += of_person or [(None, member_id, None, None)]
    return suppressions(found)
