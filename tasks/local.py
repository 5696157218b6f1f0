"""Running a flow in the process of a command: only what concerns Prefect. Knows neither the flows nor the terminal."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

import fastapi.encoders  # noqa: F401  # Prefect imports it when a flow starts: too late to happen in parallel
from httpx import HTTPError, HTTPStatusError
from prefect import Flow, State
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from klaviyo_pg.errors import BadSettings, KlaviyoPgError, Stopped, Unavailable
from pipeline.outcome import describe
from pipeline.session import Session

Display = Callable[[Session], AbstractContextManager[object]]
_DISPLAY: ContextVar[Display | None] = ContextVar("_DISPLAY", default=None)
"""The display of the run in this process. The default, None, shows nothing."""


def show_runs_with(display: Display) -> None:
    """Show the progress of the runs of this process with a display."""
    _DISPLAY.set(display)


def displayed(session: Session) -> AbstractContextManager[object]:
    """Show the progress of a session while the block runs, if this process has a display."""
    display = _DISPLAY.get()
    return nullcontext() if display is None else display(session)


def check_server() -> None:
    """Raise BadSettings if no Prefect server responds at PREFECT_API_URL."""
    with get_client(sync_client=True) as client:
        if client.api_healthcheck():
            raise BadSettings("No Prefect server responds at PREFECT_API_URL. Start the server, or unset the variable.")


@contextmanager
def command_settings() -> Iterator[None]:
    """Use Prefect settings for a command while the block runs. Changing them takes a moment."""
    # Nothing watches the heartbeat of a command, and ending it takes a second.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def run_flow(flow: Flow[..., Any], parameters: Mapping[str, Any]) -> Any:
    """Run a flow, and return its result or the exception with which it ended.

    Raises Stopped on SIGTERM, BadSettings if Prefect's server requires a login, and Unavailable if it fails.
    """
    try:
        state: State[Any] = flow(**parameters, return_state=True)  # type: ignore[assignment]  # typed by the flow
    except TerminationSignal:
        raise Stopped from None
    except (HTTPError, RuntimeError) as error:
        raise _server_failure(error) from None
    return state.result(raise_on_failure=False)


def _server_failure(error: Exception) -> KlaviyoPgError:
    """Return the error that explains an answer of Prefect's server."""
    if isinstance(error, HTTPStatusError) and error.response.status_code == HTTPStatus.UNAUTHORIZED:
        return BadSettings("Prefect's server requires a login. Set PREFECT_API_AUTH_STRING to USER:PASSWORD.")
    return Unavailable(
        f"Prefect's server failed ({describe(error)}). Its database may be too busy: close other Prefect commands, and "
        "rerun with the same arguments to resume."
    )
