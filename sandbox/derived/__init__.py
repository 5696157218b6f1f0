"""An account of any size that is computed from the numbers of its events and people. Must not know any API."""

from sandbox.derived.account import DerivedAccount, derive
from sandbox.derived.options import DerivedOptions

__all__ = ["DerivedAccount", "DerivedOptions", "derive"]
