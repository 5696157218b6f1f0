"""Every error that this project raises on purpose, grouped by what the caller does next.

    KlaviyoPgError
    ├── UserError              stop; the sentence says what to change          exit code 2
    │   ├── BadSettings        a setting or flag
    │   ├── BadKey             the API key is missing or not accepted
    │   ├── Busy               the same is under way already
    │   ├── WrongDialect       the endpoints of this dialect are gone
    │   └── DatabaseUnusable   no connection, no privilege, read-only
    │       └── DatabaseAway   the same, but it may pass: worth another try while a run is under way
    ├── MissingScope           skip what needs it, go on, end as partial       exit code 3
    ├── Stopped                the user asked for it; go on with the next run   exit code 130
    ├── Refused                the API said no to a request; not worth a retry exit code 1
    │   └── NotFound           what was asked for is not there (any more)
    ├── BadAnswer              the answer is not what this API sends           exit code 1
    │   └── Garbled            nothing of it can be read: worth another try or two
    └── Unavailable            worth another try                               exit code 1
        ├── TooMuch            too long in coming, or too long: worth asking for less
        └── Throttled          the API's limit is used up; go on with the next run   exit code 4

The class docstring is the default message. Errors of other libraries are translated where they enter: HTTP in
klaviyo_pg.klaviyo.http, Postgres in klaviyo_pg.postgres.connect.
"""


class KlaviyoPgError(Exception):
    """The run could not go on."""

    exit_code = 1

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or type(self).__doc__)


class UserError(KlaviyoPgError):
    """Something in the set-up has to be changed."""

    exit_code = 2


class BadSettings(UserError):
    """A setting has a value that cannot be used."""


class BadKey(UserError):
    """Klaviyo does not accept the API key: set KLAVIYO_API_KEY to a private key of the account."""


class Busy(UserError):
    """The same is under way already: wait for it, or end it."""


class WrongDialect(UserError):
    """These endpoints were retired on 2024-06-30: set KLAVIYO_DIALECT=current."""


class DatabaseUnusable(UserError):
    """The database cannot be used: check DATABASE_URL."""


class DatabaseAway(DatabaseUnusable):
    """There is no connection to the database: check DATABASE_URL and that it runs."""


class MissingScope(KlaviyoPgError):
    """The API key lacks a scope."""

    exit_code = 3

    def __init__(self, scope: str) -> None:
        self.scope = scope
        super().__init__(f"The API key lacks the scope {scope}: add it to the key in Klaviyo's settings.")

    def __reduce__(self) -> tuple[type["MissingScope"], tuple[str]]:
        return (MissingScope, (self.scope,))


class Stopped(KlaviyoPgError):
    """Stopped as asked; the same command goes on where it stopped."""

    exit_code = 130


class Refused(KlaviyoPgError):
    """Klaviyo refused a request."""


class NotFound(Refused):
    """Klaviyo does not have what was asked for."""


class BadAnswer(KlaviyoPgError):
    """The answer is not one of Klaviyo's API: check KLAVIYO_BASE_URL."""


class Garbled(BadAnswer):
    """The answer cannot be read: check KLAVIYO_BASE_URL."""


class Unavailable(KlaviyoPgError):
    """Klaviyo did not answer in time."""

    def __init__(self, message: str | None = None, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class TooMuch(Unavailable):
    """The answer took too long, or was too long."""


class Throttled(Unavailable):
    """The API's rate limit is used up for longer than a run waits."""

    exit_code = 4
