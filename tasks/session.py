"""The session of the flow that is running. Its tasks find it through the context that Prefect gives their threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from klaviyo_pg.errors import KlaviyoPgError
from klaviyo_pg.settings import Settings
from pipeline.known_secrets import presentable, secrets_of
from pipeline.session import Session
from tasks import logs

_CURRENT: ContextVar[Session | None] = ContextVar("session", default=None)


@contextmanager
def flow_session(settings: Settings) -> Iterator[Session]:
    """Open the session of a flow run. Tasks that the block starts use it."""
    logs.configure(settings)
    logs.hide(secrets_of(settings))
    with _without_secrets(settings), Session(settings) as session:
        token = _CURRENT.set(session)
        try:
            yield session
        finally:
            _CURRENT.reset(token)


@contextmanager
def task_session(settings: Settings) -> Iterator[Session]:
    """Use the session of the flow; where Prefect starts a task in another process, a new one."""
    current = _CURRENT.get()
    if current is not None:
        with _without_secrets(settings):
            yield current
        return
    logs.hide(secrets_of(settings))
    with _without_secrets(settings), Session(settings) as session:
        yield session


@contextmanager
def _without_secrets(settings: Settings) -> Iterator[None]:
    """Raise an error of this project in place of one that shows a secret: Prefect keeps errors in states and logs."""
    try:
        yield
    except KlaviyoPgError:
        raise
    except Exception as error:
        if (shown := presentable(error, settings)) is error:
            raise
        raise shown from None
