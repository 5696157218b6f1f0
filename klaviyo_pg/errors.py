"""Every error that this project raises on purpose, grouped by what the caller does next.

    KlaviyoPgError
    ├── UserError              stop: the user has to change something           exit code 2
    │   ├── BadSettings        a setting or argument is invalid
    │   ├── BadKey             the API key is missing or not accepted
    │   ├── Busy               another run holds the claim, or another session a lock
    │   │   └── TablesInUse    other sessions use tables of the warehouse: retry for a while
    │   ├── ClocksDiffer       the clocks of machine, database and API differ
    │   ├── WrongDialect       the endpoints of this dialect were retired
    │   ├── RetiredRevision    Klaviyo no longer serves the revision
    │   └── DatabaseUnusable   no connection, no privilege, or read-only
    │       └── DatabaseAway   no connection: retry while a run is in progress
    ├── MissingScope           skip what needs it, finish as partial            exit code 3
    ├── UnconfirmedLoss        read it again, then finish as partial            exit code 3
    ├── LeftOut                not read for now: finish as partial              exit code 3
    │   └── QuotaUsedUp        the quota of a day is used up: the next runs continue
    ├── SweepLost              read it again                                    exit code 1
    ├── ClaimLost              take the claim again                             exit code 1
    ├── Stopped                stop on request: the next run resumes            exit code 130
    ├── Refused                the API refused a request: leave it out, finish as partial (alone: exit code 1)
    │   ├── NotFound           the requested object does not exist
    │   ├── PageTooLarge       request a smaller page
    │   ├── OtherRevision      the response has the form of another revision
    │   └── Incomplete         a part of a collection was refused, the rest was read
    ├── BadAnswer              the response violates the API's contract         exit code 1
    │   └── Garbled            the response cannot be decoded: retry once or twice
    └── Unavailable            no usable response: retry                        exit code 1
        ├── Unreachable        no connection to the host
        ├── TooMuch            too slow or too large: request a smaller page
        └── Throttled          the rate limit is used up: the next run resumes  exit code 4

The docstring of each class is its default message. All messages are printable, on one line, and bounded.
Errors of other libraries are translated where they enter: HTTP in
klaviyo_pg.klaviyo.client, Postgres in klaviyo_pg.postgres.connect.
"""

from collections.abc import Sequence

from klaviyo_pg.foreign import LONGEST_MESSAGE, printable


class KlaviyoPgError(Exception):
    """The run failed."""

    exit_code = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(printable(message or type(self).__doc__ or "", LONGEST_MESSAGE))


class UserError(KlaviyoPgError):
    """The configuration has to be changed."""

    exit_code = 2


class BadSettings(UserError):
    """A setting has an invalid value."""


class BadKey(UserError):
    """Klaviyo does not accept the API key. Set KLAVIYO_API_KEY to a private API key of the account."""


class Busy(UserError):
    """Another run of this flow is in progress. Wait for it to finish or stop it."""


class TablesInUse(Busy):
    """Other sessions use tables of the warehouse. End them, then rerun to resume."""

    def __init__(self, use: str = "Other sessions use tables of the warehouse") -> None:
        self.use = use
        super().__init__(f"{use}. End them, then rerun to resume.")

    def __reduce__(self) -> tuple[type["TablesInUse"], tuple[str]]:
        return (TablesInUse, (self.use,))


class ClocksDiffer(UserError):
    """The clocks of this machine, the database and the API differ. Set the wrong one, then rerun."""


class WrongDialect(UserError):
    """The endpoints of this dialect were retired on 2024-06-30. Set KLAVIYO_DIALECT=current."""


class RetiredRevision(UserError):
    """Klaviyo no longer serves the revision of KLAVIYO_REVISION. Set it to a later one, or update klaviyo-pg."""


class DatabaseUnusable(UserError):
    """The database cannot be used. Check DATABASE_URL."""

    problem: str | None = None
    """The message without Postgres' words, which differ between sessions that have the same problem."""


class DatabaseAway(DatabaseUnusable):
    """Cannot connect to the database. Check DATABASE_URL, and check that the database is running."""


class MissingScope(KlaviyoPgError):
    """The API key lacks a scope."""

    exit_code = 3

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__(f"The API key lacks the scope {scope}. Add it to the key in Klaviyo's settings.")

    def __reduce__(self) -> tuple[type["MissingScope"], tuple[str]]:
        return (MissingScope, (self.scope,))


class UnconfirmedLoss(KlaviyoPgError):
    """A full read lacks so many of the stored rows that a later run has to confirm it."""

    exit_code = 3

    def __init__(self, stream: str, missing: int, stored: int) -> None:
        self.stream, self.missing, self.stored = stream, missing, stored
        super().__init__(
            f"Klaviyo's answer lacks {missing:,} of {stored:,} stored rows of {stream}, also after a second request. "
            "No row was marked as deleted. The next run marks those that are still missing."
        )

    def __reduce__(self) -> tuple[type["UnconfirmedLoss"], tuple[str, int, int]]:
        return (UnconfirmedLoss, (self.stream, self.missing, self.stored))


class LeftOut(KlaviyoPgError):
    """Something was not read."""

    exit_code = 3


class QuotaUsedUp(LeftOut):
    """Klaviyo's quota for the day is used up. The next runs continue."""


class UnknownSegment(LeftOut):
    """SEGMENTS has a name or ID that no segment has, or a name that several have. Everything else is read."""

    def __init__(self, name: str, ids: Sequence[str] = ()) -> None:
        self.name, self.ids = name, tuple(ids)
        super().__init__(
            f"SEGMENTS: {len(ids)} segments have the name {name!r}. Use the ID of the one that you mean: "
            f"{', '.join(ids)}."
            if ids
            else f"SEGMENTS: the account has no segment with the name or ID {name!r}. Use a name as Klaviyo shows it, "
            "including upper and lower case, or the ID."
        )

    def __reduce__(self) -> tuple[type["UnknownSegment"], tuple[str, tuple[str, ...]]]:
        return (UnknownSegment, (self.name, self.ids))


class SweepLost(KlaviyoPgError):
    """The database lost what a full read had stored so far. The next run reads it again."""


class ClaimLost(KlaviyoPgError):
    """The database ended the session that holds the claim of this run. Rerun to resume."""


class Stopped(KlaviyoPgError):
    """Stopped on request. Rerun with the same arguments to resume."""

    exit_code = 130


class Refused(KlaviyoPgError):
    """Klaviyo refused a request."""


class NotFound(Refused):
    """Klaviyo has no such object."""


class PageTooLarge(Refused):
    """Klaviyo does not accept the page size."""


class OtherRevision(Refused):
    """Klaviyo returned something in the form of another revision than the requested one."""

    def __init__(self, what: str, revision: str) -> None:
        self.what, self.revision = what, revision
        super().__init__(
            f"Klaviyo returned {what} in another form than that of revision {revision}, so they were not stored. Set "
            "KLAVIYO_REVISION to another revision."
        )

    def __reduce__(self) -> tuple[type["OtherRevision"], tuple[str, str]]:
        return (OtherRevision, (self.what, self.revision))


class Incomplete(Refused):
    """Klaviyo refused a part of a collection. `parts` are the names of what is missing, `reason` says why."""

    def __init__(self, parts: Sequence[str], reason: str) -> None:
        self.parts, self.reason = tuple(parts), reason
        super().__init__(f"Read without {', '.join(parts)}: {reason}")

    def __reduce__(self) -> tuple[type["Incomplete"], tuple[tuple[str, ...], str]]:
        return (Incomplete, (self.parts, self.reason))


class BadAnswer(KlaviyoPgError):
    """The response is not from Klaviyo's API. Check KLAVIYO_BASE_URL."""


class Garbled(BadAnswer):
    """The response cannot be decoded. Check KLAVIYO_BASE_URL."""


class Unavailable(KlaviyoPgError):
    """Klaviyo did not respond in time."""

    def __init__(self, message: str | None = None, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Unreachable(Unavailable):
    """There is no connection to the API's host. Check KLAVIYO_BASE_URL and the network."""


class TooMuch(Unavailable):
    """The response was too large or took too long."""


class Throttled(Unavailable):
    """The API's rate limit is used up for longer than RETRY_BUDGET_SECONDS. Rerun later to resume."""

    exit_code = 4

    def __init__(self, message: str | None = None, retry_after: float | None = None, is_limit: bool = False) -> None:
        """Set `is_limit` if the API itself said so: it may also be unavailable, or the client's own wait too long."""
        self.is_limit = is_limit
        super().__init__(message, retry_after)
