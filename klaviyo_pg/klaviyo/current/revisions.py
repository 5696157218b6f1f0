"""The revisions of the API that can be read, and the reader of campaigns of each: all else is the same in both."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

from klaviyo_pg import rows
from klaviyo_pg.klaviyo.current import campaigns, omnichannel
from klaviyo_pg.klaviyo.current.reader import Reader
from klaviyo_pg.settings import Revision

CampaignReader = Callable[[Reader], Iterator[rows.Page[rows.Campaign]]]
"""Reads all campaigns with their messages. Raises OtherRevision if they come in the form of another revision."""

CAMPAIGNS: Mapping[Revision, CampaignReader] = MappingProxyType(
    {"2026-07-15": campaigns.read, "2026-10-15": omnichannel.read}
)
