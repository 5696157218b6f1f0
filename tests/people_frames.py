"""All frames of people who were read, as a batch of them has. Knows no source and no database."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import polars as pl

from klaviyo_pg.catalogue import Load
from klaviyo_pg.rows import Profile, Reject
from transforms import people as transforms


class People(NamedTuple):
    """The frames for a load of members and for MEMBER_ATTRIBUTES."""

    members: pl.DataFrame
    attributes: pl.DataFrame
    rejects: Sequence[Reject]
    nul_characters: int


def people(profiles: Sequence[Profile], load: Load, extracted_at: datetime, integration_id: str) -> People:
    """Return the frames of people. Of people with the same id the last stays."""
    latest = transforms.latest(profiles)
    members = transforms.members(latest, load, extracted_at, integration_id)
    attributes = transforms.attributes(latest, extracted_at, integration_id)
    nul_characters = members.nul_characters + attributes.nul_characters
    return People(members.frame, attributes.frame, attributes.rejects, nul_characters)


def consents(profiles: Sequence[Profile], integration_id: str) -> transforms.Consents:
    """Return the frames of their consents and list suppressions."""
    return transforms.consents(transforms.latest(profiles), integration_id)
