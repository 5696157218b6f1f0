"""The account's data: what exists, independent of any API. Must not import the other packages of the sandbox."""

from sandbox.account.generate import generate
from sandbox.account.model import (
    Account,
    Campaign,
    CampaignMessage,
    Flow,
    Group,
    Integration,
    Metric,
    Options,
    Tag,
    TagGroup,
)

__all__ = [
    "Account",
    "Campaign",
    "CampaignMessage",
    "Flow",
    "Group",
    "Integration",
    "Metric",
    "Options",
    "Tag",
    "TagGroup",
    "generate",
]
