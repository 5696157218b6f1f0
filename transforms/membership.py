"""Frames for exclusions, members of lists and segments, their sweeps, and suppressions that concern one list."""

from collections.abc import Iterable, Mapping, Sequence

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import loads
from klaviyo_pg.catalogue.types import BOOLEAN, TEXT, TIMESTAMP
from transforms.clean import Cleaned, by_id, cleaned, cleaned_rows, conformed, last_by, same
from transforms.keys import md5, row_key

_EXCLUSION = {**same(TEXT, "email", "reason", "member_id"), "created_at": ("since", TIMESTAMP)}
_MEMBERSHIP = {
    **same(TEXT, "list_id", "member_id"),
    "created_at": ("joined", TIMESTAMP),
    **same(BOOLEAN, "is_subscribed"),
}
_SEGMENT_MEMBER = {
    "segment_id": ("list_id", TEXT),
    **same(TEXT, "member_id"),
    "joined_at": ("joined", TIMESTAMP),
}
_SUPPRESSION = {**same(TEXT, "list_id", "member_id", "reason"), "suppressed_at": ("since", TIMESTAMP)}


def exclusions(exclusions: Sequence[rows.Exclusion], account_id: str | None) -> Cleaned:
    """Return the frame for the loads STG_MEMBER_EXCLUSIONS and MEMBER_EXCLUSIONS, which have the same columns.

    Of several reasons for one address, the one with the latest timestamp stays; if several have it, the last by name.
    """
    raw = cleaned_rows(exclusions, _EXCLUSION)
    frame = raw.frame.with_columns(_sync_id=md5(pl.col("email")), _account_id=pl.lit(account_id, TEXT.polars))
    latest = frame.sort("created_at", "reason", nulls_last=False).pipe(last_by, "_sync_id")
    return raw._replace(frame=conformed(latest, loads.STG_MEMBER_EXCLUSIONS))


def memberships(memberships: Sequence[rows.Membership], account_id: str | None) -> Cleaned:
    """Return the frame for the load STG_MEMBER_LISTS."""
    raw = cleaned_rows(memberships, _MEMBERSHIP)
    frame = raw.frame.with_columns(
        _sync_id=md5(pl.col("list_id") + ":" + pl.col("member_id")), _account_id=pl.lit(account_id, TEXT.polars)
    )
    return raw._replace(frame=frame.pipe(last_by, "_sync_id").pipe(conformed, loads.STG_MEMBER_LISTS))


def segment_members(memberships: Sequence[rows.Membership], integration_id: str) -> Cleaned:
    """Return the frame for the load SEGMENT_MEMBERS."""
    raw = cleaned_rows(memberships, _SEGMENT_MEMBER)
    identified = raw.frame.with_columns(id=pl.col("segment_id") + ":" + pl.col("member_id"))
    return by_id(
        raw._replace(frame=identified),
        loads.SEGMENT_MEMBERS,
        integration_id,
        segment_key=row_key(integration_id, pl.col("segment_id")),
        member_key=md5(pl.col("member_id")),
    )


def swept(list_id: str, sweep: str, answers: Iterable[tuple[str, str]]) -> Cleaned:
    """Return the frame for the load SWEPT_MEMBERS, from (profile id, answer).

    Its NUL characters are not counted: the memberships have the same ids.
    """
    found = pl.DataFrame(list(answers), {"member_id": TEXT.polars, "answer": TEXT.polars}, orient="row")
    raw = found.with_columns(list_id=pl.lit(list_id), sweep=pl.lit(sweep)).pipe(cleaned)
    return Cleaned(raw.frame.pipe(last_by, "member_id", "answer").pipe(conformed, loads.SWEPT_MEMBERS))


def suppressions(suppressions: Sequence[rows.Suppression]) -> Cleaned:
    """Return the frame for the load LIST_SUPPRESSIONS or LIST_SUPPRESSIONS_OF_PEOPLE, which have the same columns."""
    raw = cleaned_rows(suppressions, _SUPPRESSION)
    return raw._replace(frame=raw.frame.pipe(last_by, "member_id", "list_id").pipe(conformed, loads.LIST_SUPPRESSIONS))


def suppressions_of_people(people: Mapping[str, Sequence[rows.Suppression] | None]) -> Cleaned:
    """Return the frame for the load LIST_SUPPRESSIONS_OF_PEOPLE, from all suppressions of each person, by profile id.

    A person without suppressions has one row without a list. It is not stored: it says that there are none. People
    whose suppressions are unknown (None) are left out.
    """
    made = suppressions([each for of_person in people.values() for each in of_person or ()])
    without = [member_id for member_id, of_person in people.items() if of_person is not None and not of_person]
    markers = pl.DataFrame({"member_id": without}, {"member_id": TEXT.polars})
    return made._replace(frame=pl.concat([made.frame, conformed(markers, loads.LIST_SUPPRESSIONS)]))
