"""Removal of people who were erased, for as long as the source still returns them."""

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import polars as pl

from klaviyo_pg.catalogue import Load, events, loads
from klaviyo_pg.catalogue.personal import CURRENCIES, EVENT_ID, MESSAGE_ID
from transforms.keys import md5, row_key

_OF_THE_PERSON = ("member_key", "email", "email_domain", "properties")
_MEMBER_KEYS = ("member_key", "old_member_key", "new_member_key")
_FROM_EVENTS = {"name": "$['Campaign Name']", "subject": "$['Subject']"}
_EXCLUSIONS = (loads.SWEPT_EXCLUSIONS, loads.NEW_EXCLUSIONS, loads.STG_MEMBER_EXCLUSIONS, loads.MEMBER_EXCLUSIONS)
_BY_ADDRESS = (*_EXCLUSIONS, loads.REVIEWS)
"""Loads of rows that have an address, and not always a profile."""
_WORD = re.compile(r"""[^\s"'<>()\[\]{},;:=\\/?&]+""")
_ENCODED_AT = re.compile(r"%40|\\u0040")

Frames = Sequence[tuple[Load, pl.DataFrame]]


class ErasedPeople(NamedTuple):
    """The people of an account who were erased: their member keys, and the keys of their addresses."""

    integration_id: str
    members: Collection[str] = ()
    addresses: Collection[str] = ()

    def __bool__(self) -> bool:
        return bool(self.members or self.addresses)

    def key_of(self, address: str) -> str:
        """Return the key of an address."""
        return hashed(f"{self.integration_id}:{address.lower()}")

    def has_address(self, address: str) -> bool:
        """Return whether an address is that of a person who was erased."""
        return self.key_of(address) in self.addresses

    def is_in(self, text: str) -> bool:
        """Return whether a text contains the ID, the member key or an address of a person who was erased."""
        return any(
            word in self.members or hashed(word) in self.members or (self.addresses and self.has_address(word))
            for word in words_in(text)
        )


def words_in(text: str) -> set[str]:
    """Return the words of a text that can be an ID, a member key or an address."""
    return {word.rstrip(".") for word in _WORD.findall(_ENCODED_AT.sub("@", text))}


def member_keys(frames: Frames) -> set[str]:
    """Return the member keys of all people in the frames of a batch."""
    keys: set[str] = set()
    for _, frame in frames:
        if named := [name for name in _MEMBER_KEYS if name in frame.columns]:
            keys.update(*(frame.get_column(name).drop_nulls().unique() for name in named))
        elif "member_id" in frame.columns:
            keys.update(map(hashed, frame.get_column("member_id").drop_nulls().unique()))
    return keys


def excluded_addresses(frames: Frames) -> set[str]:
    """Return the addresses, in lower case, of exclusions that have no profile, and of reviews."""
    return {
        address.lower()
        for load, frame in frames
        if load in _BY_ADDRESS
        for address in frame.filter(_has_no_profile(frame)).get_column("email").drop_nulls()
    }


def _has_no_profile(frame: pl.DataFrame) -> pl.Expr:
    return pl.col("member_id").is_null() if "member_id" in frame.columns else pl.lit(True)


def without(frames: Frames, erased: ErasedPeople) -> Frames:
    """Remove the people who were erased from the frames of a batch.

    Their events stay, without what identifies a person, and flow campaigns get their names from other events.
    """
    if not erased.members:
        return frames
    of_events = [frame for load, frame in frames if load.table in events.EVENT_TABLES]
    return _unswept(frames, [(load, _without(frame, load, erased, of_events)) for load, frame in frames])


def _unswept(before: Frames, after: Frames) -> Frames:
    """Do not count rows that were removed as found: a full read marks a stored row, which is another person's."""
    if not any(load is loads.SWEPT_ROWS for load, _ in after):
        return after
    removed = [
        old.select(pl.lit(load.table.name).alias("table_name"), row_key="key").join(
            new, left_on="row_key", right_on="key", how="anti"
        )
        for (load, old), (_, new) in zip(before, after, strict=True)
        if old.height > new.height and "key" in old.columns
    ]
    if not removed:
        return after
    gone = pl.concat(removed)
    return [
        (load, frame.join(gone, on=["table_name", "row_key"], how="anti") if load is loads.SWEPT_ROWS else frame)
        for load, frame in after
    ]


def _without(frame: pl.DataFrame, load: Load, erased: ErasedPeople, of_events: Sequence[pl.DataFrame]) -> pl.DataFrame:
    if load is loads.FLOW_CAMPAIGNS:
        return _renamed(frame, of_events, erased)
    if load.table in events.EVENT_TABLES:
        return _cleared(frame, erased)
    if load.table is loads.EVENT_ATTRIBUTIONS.table:
        return _unlinked(frame, of_events, erased)
    if load is loads.PROFILE_MERGES:
        return _nameless(frame, erased)
    if "member_key" in frame.columns:
        return frame.filter(~_is_theirs(pl.col("member_key"), erased))
    if "member_id" in frame.columns:
        return frame.filter(~_is_theirs(md5(pl.col("member_id")), erased))
    return frame


def _is_theirs(member_key: pl.Expr, erased: ErasedPeople) -> pl.Expr:
    return member_key.is_in(list(erased.members)).fill_null(False)


def _cleared(frame: pl.DataFrame, erased: ErasedPeople) -> pl.DataFrame:
    """Clear the events of the people. An ID that is not one, such as an address, becomes its digest, or null."""
    is_theirs = _is_theirs(pl.col("member_key"), erased)
    if not frame.select(is_theirs.any()).item():
        return frame
    digest = md5(pl.col("id"))
    is_odd = is_theirs & ~pl.col("id").str.contains(EVENT_ID)
    has_currency = pl.col("value_currency").str.to_uppercase().is_in(list(CURRENCIES))
    is_variation = pl.col("variation").str.contains(MESSAGE_ID)
    return frame.with_columns(
        pl.when(is_odd).then(row_key(erased.integration_id, digest)).otherwise(pl.col("key")).alias("key"),
        pl.when(is_odd).then(digest).otherwise(pl.col("id")).alias("id"),
        pl.when(~is_theirs | has_currency).then(pl.col("value_currency")).alias("value_currency"),
        pl.when(~is_theirs | is_variation).then(pl.col("variation")).alias("variation"),
        *(pl.when(~is_theirs).then(pl.col(name)).alias(name) for name in _OF_THE_PERSON),
    )


def _unlinked(attributions: pl.DataFrame, of_events: Sequence[pl.DataFrame], erased: ErasedPeople) -> pl.DataFrame:
    """Leave what events of the people are attributed to, without the other event. One with an odd ID is removed."""
    if attributions.is_empty() or not of_events:
        return attributions
    columns = pl.concat([frame.select("key", "id", "member_key") for frame in of_events])
    theirs = columns.filter(_is_theirs(pl.col("member_key"), erased))
    odd = theirs.filter(~pl.col("id").str.contains(EVENT_ID)).get_column("key")
    is_theirs = pl.col("event_key").is_in(theirs.get_column("key").implode())
    is_odd = pl.col("event_key").is_in(odd.implode()) | ~pl.col("id").str.contains(EVENT_ID)
    return attributions.filter(~(is_theirs & is_odd)).with_columns(
        pl.when(~is_theirs).then(pl.col("attributed_event_key")).alias("attributed_event_key")
    )


def _nameless(merges: pl.DataFrame, erased: ErasedPeople) -> pl.DataFrame:
    """Leave the profiles that were merged into the people, who are erased too, but not the IDs of the people."""
    is_theirs = _is_theirs(pl.col("new_member_key"), erased)
    return merges.filter(~_is_theirs(pl.col("old_member_key"), erased)).with_columns(
        pl.when(~is_theirs).then(pl.col("new_member_id")).alias("new_member_id")
    )


def _renamed(campaigns: pl.DataFrame, of_events: Sequence[pl.DataFrame], erased: ErasedPeople) -> pl.DataFrame:
    """Take the names of the flow campaigns that sent to the people from events of others."""
    if campaigns.is_empty() or not of_events:
        return campaigns
    columns = ("campaign_key", "automation_key", "member_key", "event_at", "properties")
    sent = pl.concat([frame.select(columns) for frame in of_events]).filter(pl.col("automation_key").is_not_null())
    is_theirs = _is_theirs(pl.col("member_key"), erased)
    touched = sent.filter(is_theirs).get_column("campaign_key").drop_nulls().unique()
    if touched.is_empty():
        return campaigns
    others = sent.filter(~is_theirs & pl.col("campaign_key").is_in(touched.implode())).sort(
        "event_at", maintain_order=True
    )
    texts = [
        _text_at(pl.col("properties"), path).drop_nulls().last().alias(name) for name, path in _FROM_EVENTS.items()
    ]
    named = others.group_by("campaign_key").agg(*texts)
    is_touched = pl.col("campaign_key").is_in(touched.implode())
    renamed = (
        campaigns.filter(is_touched & pl.col("id").str.contains(MESSAGE_ID))
        .drop(*_FROM_EVENTS)
        .join(named, on="campaign_key", how="left")
        .select(campaigns.columns)
    )
    return pl.concat([campaigns.filter(~is_touched), renamed])


def _text_at(properties: pl.Expr, path: str) -> pl.Expr:
    text = properties.str.json_path_match(path)
    return pl.when(~text.is_in(["", "null"])).then(text)


def unclaimed_exclusions(frames: Frames, erased: ErasedPeople) -> set[str]:
    """Return the addresses, in lower case, that have no profile and belong to a person who was erased."""
    return {address for address in excluded_addresses(frames) if erased.has_address(address)}


def without_exclusions(frames: Frames, addresses: Iterable[str]) -> Frames:
    """Remove the exclusions of these addresses, in lower case, that have no profile, and their reviews."""
    removed = list(addresses)
    if not removed:
        return frames
    is_theirs = pl.col("email").str.to_lowercase().is_in(removed).fill_null(False)
    left = [
        (load, frame.filter(~(_has_no_profile(frame) & is_theirs)) if load in _BY_ADDRESS else frame)
        for load, frame in frames
    ]
    return _unswept(frames, left)


def hashed(text: str) -> str:
    """Return the md5 of a text, as the database computes it."""
    return hashlib.md5(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
