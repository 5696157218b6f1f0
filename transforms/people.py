"""Frames for people: members, their custom properties, their consents, and the lists that they are suppressed for."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

import polars as pl

from klaviyo_pg import rows
from klaviyo_pg.catalogue import Load, loads
from klaviyo_pg.catalogue.types import TIMESTAMP
from transforms.clean import Cleaned, by_id, cleaned, conformed, last_by
from transforms.keys import md5, row_key
from transforms.membership import suppressions_of_people

_TIME = TIMESTAMP.polars
_TEXTS = (
    *("id", "email", "timezone", "first_name", "last_name", "source"),
    *("address1", "address2", "city", "state", "zip", "country", "phone_number"),
    *("external_id", "organization", "title", "locale"),
)
_MEMBER = {
    **dict.fromkeys(_TEXTS, pl.String()),
    "longitude": pl.Float64(),
    "latitude": pl.Float64(),
    "created_at": _TIME,
    "consent": pl.String(),
    "consent_timestamp": _TIME,
    "last_event_date": _TIME,
    "klaviyo_updated_at": _TIME,
}
_CONSENT = {
    "member_id": pl.String(),
    "channel": pl.String(),
    "consent": pl.String(),
    "can_receive": pl.Boolean(),
    "method": pl.String(),
    "method_detail": pl.String(),
    "consent_timestamp": _TIME,
    "updated_at": _TIME,
    "double_optin": pl.Boolean(),
}
_LONGEST_NAME = 2000  # bytes: the name is in a primary key, and an index entry of Postgres has at most about 2,700
_COUNTED = {"id": pl.String(), "count": pl.UInt32()}


class Attributes(NamedTuple):
    """The frame for the load MEMBER_ATTRIBUTES. `unstorable` are the ids of people with a reject."""

    frame: pl.DataFrame
    rejects: Sequence[rows.Reject]
    unstorable: Sequence[str]
    nul_characters: int


NO_ATTRIBUTES = Attributes(pl.DataFrame(schema=loads.MEMBER_ATTRIBUTES.schema), (), (), 0)


class Consents(NamedTuple):
    """The frames for the loads MEMBER_CONSENTS and LIST_SUPPRESSIONS_OF_PEOPLE."""

    consents: pl.DataFrame
    suppressions: pl.DataFrame
    nul_characters: int


NO_CONSENTS = Consents(
    pl.DataFrame(schema=loads.MEMBER_CONSENTS.schema), pl.DataFrame(schema=loads.LIST_SUPPRESSIONS_OF_PEOPLE.schema), 0
)


def latest(profiles: Iterable[rows.Profile]) -> list[rows.Profile]:
    """Return the people, of those with the same id the last."""
    return list({profile.id: profile for profile in profiles}.values())


def members(
    profiles: Sequence[rows.Profile],
    load: Load,
    extracted_at: datetime,
    integration_id: str,
    digests: Mapping[str, int] = MappingProxyType({}),
) -> Cleaned:
    """Return the frame of different people who were read at `extracted_at`, with their digests by id."""
    if not profiles:  # as on most pages of events, where all people are already stored
        return Cleaned(pl.DataFrame(schema=load.schema), 0)
    raw = cleaned(_members(profiles))
    digest = pl.Series([digests.get(each.id) for each in profiles], dtype=pl.Int64())
    frame = raw.frame.with_columns(
        key=row_key(integration_id, pl.col("id")),
        member_key=md5(pl.col("id")),
        updated_at=pl.lit(extracted_at, _TIME),
        details_digest=digest,
    )
    return raw._replace(frame=conformed(frame, load))


def stubs(people: Iterable[tuple[str, str | None]], integration_id: str) -> Cleaned:
    """Return the frame for the load MEMBER_STUBS, from the ids and addresses of people."""
    raw = pl.DataFrame(list(people), {"id": pl.String(), "email": pl.String()}, orient="row").pipe(cleaned)
    return by_id(raw, loads.MEMBER_STUBS, integration_id, member_key=md5(pl.col("id")))


def attributes(profiles: Sequence[rows.Profile], extracted_at: datetime, integration_id: str) -> Attributes:
    """Return the custom properties of different people. A person without any has one row without a name."""
    if not profiles:
        return NO_ATTRIBUTES
    raw = cleaned(_attributes(profiles, integration_id), blank_columns=frozenset({"name"}))
    frame = raw.frame
    is_too_long = frame.get_column("name").str.len_bytes() > _LONGEST_NAME
    long_names = frame.filter(is_too_long).select("id", "name", "value")
    if long_names.height:
        frame = frame.filter(~is_too_long.fill_null(False))
    if raw.nul_characters:  # without which two names can be the same
        frame = frame.pipe(last_by, "key", "name")
    at = pl.lit(extracted_at, _TIME)
    return Attributes(
        frame.with_columns(created_at=at, updated_at=at).pipe(conformed, loads.MEMBER_ATTRIBUTES),
        [
            rows.Reject(row, f"The name of the property is longer than {_LONGEST_NAME} bytes.", hides=False)
            for row in long_names.write_ndjson().split("\n")  # splitlines() would also split at U+2028
            if row
        ],
        long_names.get_column("id").to_list(),
        raw.nul_characters,
    )


def consents(profiles: Sequence[rows.Profile], integration_id: str) -> Consents:
    """Return the frames of different people who were read with their consents.

    A person without consents or suppressions has one row without a channel or list. What is unknown (None) is left out.
    """
    if not profiles:
        return NO_CONSENTS
    raw = cleaned(pl.DataFrame(list(_consents(profiles)), _CONSENT, orient="row"))
    row_id = pl.col("member_id") + ":" + pl.col("channel")
    frame = raw.frame.with_columns(
        id=row_id, key=row_key(integration_id, row_id), member_key=md5(pl.col("member_id"))
    ).pipe(conformed, loads.MEMBER_CONSENTS)
    suppressed, nul_characters = suppressions_of_people({each.id: each.list_suppressions for each in profiles})
    return Consents(frame, suppressed, raw.nul_characters + nul_characters)


def missing(profiles: Sequence[tuple[str, datetime]]) -> pl.DataFrame:
    """Return the frame for the load MISSING_PROFILES, from profile ids and the times at which they were missing."""
    frame = pl.DataFrame(profiles, {"member_id": pl.String(), "missing_since": _TIME}, orient="row")
    latest = frame.pipe(last_by, "member_id").with_columns(last_missing_at="missing_since")
    return latest.pipe(conformed, loads.MISSING_PROFILES)


def asked(profiles: Sequence[tuple[str, datetime]]) -> pl.DataFrame:
    """Return the frame for the load ASKED_PROFILES, from profile ids and times."""
    frame = pl.DataFrame(profiles, {"member_id": pl.String(), "asked_at": _TIME}, orient="row")
    return frame.pipe(last_by, "member_id").pipe(conformed, loads.ASKED_PROFILES)


def merges(profiles: Sequence[tuple[str, str, datetime]]) -> pl.DataFrame:
    """Return the frame for the load PROFILE_MERGES, from (old profile id, new profile id, time of detection)."""
    schema = {"old_member_id": pl.String(), "new_member_id": pl.String(), "detected_at": _TIME}
    frame = pl.DataFrame(profiles, schema, orient="row").with_columns(
        old_member_key=md5(pl.col("old_member_id")), new_member_key=md5(pl.col("new_member_id"))
    )
    return frame.pipe(last_by, "old_member_key", "new_member_key").pipe(conformed, loads.PROFILE_MERGES)


def _consents(profiles: Sequence[rows.Profile]) -> Iterator[tuple[object, ...]]:
    for profile in profiles:
        if profile.consents is None:
            continue
        by_channel = {each.channel: each for each in profile.consents}
        yield from ((profile.id, *each) for each in by_channel.values())
        if not by_channel:
            yield (profile.id, *[None] * len(rows.Consent._fields))


def _members(profiles: Sequence[rows.Profile]) -> pl.DataFrame:
    columns = dict(zip(rows.Profile._fields, zip(*profiles, strict=True), strict=True))
    columns["created_at"] = columns["created"]
    return pl.DataFrame({name: columns[name] for name in _MEMBER}, _MEMBER)


def _attributes(profiles: Sequence[rows.Profile], integration_id: str) -> pl.DataFrame:
    """Return the properties with the keys of their people, of which each is computed once."""
    nothing: Mapping[str | None, str | None] = {None: None}
    properties = [each.properties or nothing for each in profiles]
    names = [*chain.from_iterable(properties)]
    values = [*chain.from_iterable(each.values() for each in properties)]
    people = pl.DataFrame({"id": [each.id for each in profiles], "count": list(map(len, properties))}, _COUNTED)
    keyed = people.with_columns(key=row_key(integration_id, pl.col("id")), member_key=md5(pl.col("id")))
    repeated = keyed.select(pl.col("key", "id", "member_key").repeat_by("count").explode())
    return repeated.with_columns(pl.Series("name", names, pl.String()), pl.Series("value", values, pl.String()))
