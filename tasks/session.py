"""The session of the flow that is running. Its tasks find it through the context that Prefect gives their threads."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from klaviyo_pg.settings import Settings
from pipeline.session import Session

_CURRENT: ContextVar[Session | None] = ContextVar("session", default=None)


@contextmanager
def flow_session(settings: Settings) -> Iterator[Session]:
    """Open the session of a flow run. Tasks that the block starts use it."""
    with Session(settings) as session:
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
        yield current
        return
    with Session(settings) as session:
        yield session
