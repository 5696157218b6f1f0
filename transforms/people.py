"""Frames for people: members, their custom properties, and the suppressions that concern one list."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import Load, loads
from transforms.clean import cleaned, conformed, last_by
from transforms.keys import md5, row_key
from transforms.membership import suppressions

_TIME = pl.Datetime("us", "UTC")
_TEXTS = (
    *("id", "email", "timezone", "first_name", "last_name", "source"),
    *("address1", "address2", "city", "state", "zip", "country", "phone_number"),
)
_MEMBER = {
    **dict.fromkeys(_TEXTS, pl.String()),
    "longitude": pl.Float64(),
    "latitude": pl.Float64(),
    "created_at": _TIME,
    "consent": pl.String(),
    "consent_timestamp": _TIME,
}
_LONGEST_NAME = 2000  # bytes: the name is in a primary key, and an index entry of Postgres has at most about 2,700
_NO_ATTRIBUTES = pl.DataFrame(schema=loads.MEMBER_ATTRIBUTES.schema)
_PROPERTY = {"id": pl.String(), "name": pl.String(), "value": pl.String()}


class People(NamedTuple):
    """The frames for the loads MEMBERS (or EVENT_MEMBERS), MEMBER_ATTRIBUTES and SUBSCRIPTION_CHANGES."""

    members: pl.DataFrame
    attributes: pl.DataFrame
    suppressions: pl.DataFrame
    rejects: Sequence[rows.Reject]
    nul_characters: int


def people(profiles: Sequence[rows.Profile], load: Load, extracted_at: datetime, integration_id: str) -> People:
    """Return the frames of people who were read at `extracted_at`. Of people with the same id the last stays.

    Among the attributes, a person without custom properties has one row without a name.
    """
    latest = list({profile.id: profile for profile in profiles}.values())
    suppressed = suppressions([(list_id, each.id, at) for each in latest for list_id, at in each.list_suppressions])
    if not latest:  # as on most pages of events, where all people are already stored
        return People(pl.DataFrame(schema=load.schema), _NO_ATTRIBUTES, suppressed, (), 0)
    members = cleaned(_members(latest))
    attributes = cleaned(_attributes(latest), blank_columns=frozenset({"name"}))
    too_long = pl.col("name").str.len_bytes() > _LONGEST_NAME
    at = pl.lit(extracted_at, _TIME)
    keys = {"key": row_key(integration_id, pl.col("id")), "member_key": md5(pl.col("id"))}
    of_members, of_attributes, with_long_names = pl.collect_all(
        [
            members.frame.lazy().with_columns(**keys, updated_at=at).pipe(conformed, load),
            attributes.frame.lazy()
            .filter(~too_long.fill_null(False))
            .with_columns(**keys, created_at=at, updated_at=at)
            .pipe(last_by, "key", "name")
            .pipe(conformed, loads.MEMBER_ATTRIBUTES),
            attributes.frame.lazy().filter(too_long),
        ]
    )
    return People(
        of_members,
        of_attributes,
        suppressed,
        [
            rows.Reject(row, f"The name of the property is longer than {_LONGEST_NAME} bytes.", hides=False)
            for row in with_long_names.write_ndjson().split("\n")  # splitlines() would also split at U+2028
            if row
        ],
        members.nul_characters + attributes.nul_characters,
    )


def _members(profiles: Sequence[rows.Profile]) -> pl.DataFrame:
    columns = dict(zip(rows.Profile._fields, zip(*profiles, strict=True), strict=True))
    columns["created_at"] = columns["created"]
    return pl.DataFrame({name: columns[name] for name in _MEMBER}, _MEMBER)


def _attributes(profiles: Sequence[rows.Profile]) -> pl.DataFrame:
    nothing = ((None, None),)
    properties = [(each.id, name, value) for each in profiles for name, value in each.properties or nothing]
    return pl.DataFrame(properties, _PROPERTY, orient="row")
