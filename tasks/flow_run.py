"""The frame of every flow: open a session and a run, follow the runbook, and return the result as a Prefect state."""

from collections.abc import Callable, Mapping
from typing import Any

from prefect import get_run_logger
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled, Completed, Failed

from klaviyo_pg.errors import KlaviyoPgError, Stopped
from klaviyo_pg.plurals import counted
from klaviyo_pg.postgres.ledgers.backfill_ledger import part_claim
from klaviyo_pg.settings import Settings
from klaviyo_pg.states import RunState
from pipeline import refused, runs
from pipeline.figures import counts_of, figures, rows_of, rows_read
from pipeline.job import Job
from pipeline.outcome import RunFailed, RunReport, Tally, needs_correction
from pipeline.runs import Run, close_after_error
from pipeline.session import Session
from pipeline.streams.selection import selection_of
from tasks import units
from tasks.artifacts import Artifacts
from tasks.local import displayed
from tasks.naming import add_rows
from tasks.run_events import announce
from tasks.runner import PrefectWorkers
from tasks.session import flow_session

Runbook = Callable[[Job], None]
MISCONFIGURED = "Misconfigured"
"""The state of a part that has failed, and that another run could not read either."""


def follow(
    flow: str,
    prepare: Callable[[], tuple[Settings, Runbook]],
    selection: Mapping[str, object],
    is_limited: bool,
    tolerates_failures: bool = False,
) -> State[Any]:
    """Begin a run of a flow, follow its runbook, close the run, and return its state.

    Args:
        flow: the name of the flow.
        prepare: returns the settings and what the run does, or raises the error of a parameter.
        selection: what the run is asked to do; a later run with the same selection resumes it.
        is_limited: whether a parameter limits what the run reads.
        tolerates_failures: whether chunks that fail leave the run partial.
    """
    try:
        settings, runbook = prepare()
        with refused.recorded(settings, flow):
            selection_of(settings)  # raises BadSettings where TABLES cannot be followed
        with flow_session(settings) as session, displayed(session):
            run = units.prepare(settings, flow, selection, is_limited)
            return _finish(session, flow, _follow(session, run, runbook, tolerates_failures))
    except KlaviyoPgError as error:
        return _refused(error)


def follow_part(
    configured: Callable[[], Settings], run_id: str, group: str, answer_seconds: float, runbook: Runbook
) -> State[Any]:
    """Join a backfill, follow the runbook for a group of its chunks, and return the state of that part."""
    try:
        settings = configured()
        with flow_session(settings) as session:
            run = units.join(settings, run_id, "backfill", part_claim(group), answer_seconds)
            job = _job(session, run, tolerates_failures=True)
            runbook(job)
            events = sum(stage.all_items.done for stage in session.progress.snapshot())
            loaded = f"{counted(events, 'event')} loaded."
            return as_part(state_of(_report(job), loaded), job.tally.needs_correction)
    except KlaviyoPgError as error:
        return as_part(_refused(error), needs_correction(error))


def as_part(state: State[Any], is_misconfigured: bool) -> State[Any]:
    """Return the state of a part, whose name is all that the run which has started it learns of an error's kind."""
    return state.model_copy(update={"name": MISCONFIGURED}) if is_misconfigured else state


def _refused(error: KlaviyoPgError) -> State[Any]:
    """Return the state of a run that did not begin."""
    if isinstance(error, Stopped):
        return Cancelled(name=state_name(RunState.STOPPED), message=str(error), data=error)
    return Failed(message=str(error), data=error)


def _job(session: Session, run: Run, tolerates_failures: bool) -> Job:
    tally, log = Tally(tolerates_failures, run.notes), get_run_logger()
    artifacts = Artifacts(run.settings.klaviyo_integration, tally.add_notes)
    return Job(session, run, PrefectWorkers(), tally, log, artifacts)


def _follow(session: Session, run: Run, runbook: Runbook, tolerates_failures: bool) -> Job:
    """Follow the runbook. An error that ends it is noted; an unexpected one closes the run and is raised."""
    job = _job(session, run, tolerates_failures)
    try:
        runbook(job)
    except KlaviyoPgError as error:
        job.tally.end_with(error)
    except BaseException as error:  # nothing else will close it
        if isinstance(error, KeyboardInterrupt | TerminationSignal):
            close_after_error(session, run, RunState.STOPPED, str(Stopped()))
        else:
            close_after_error(session, run, RunState.FAILED, type(error).__name__)
        raise
    return job


def _finish(session: Session, flow: str, job: Job) -> State[Any]:
    counts = counts_of(session, job.run)
    job.publisher.table("rows", list(rows_of(counts)), _described(flow, _report(job)))
    report = _report(job)  # after the table, which Prefect may have refused
    if job.tally.was_ended:
        close_after_error(session, job.run, report.state, " ".join(report.sentences))
    else:
        job.workers.call(runs.finish, job.run, report.state, report.sentences)
    session.claims.release_all()
    _announce(flow, report, job, rows_read(counts))
    return state_of(report, figures(counts))


def _announce(flow: str, report: RunReport, job: Job, rows: int) -> None:
    """Show the end of a run in its name and as events. The run has ended in the warehouse, whatever Prefect says."""
    try:
        add_rows(rows)
        announce(flow, report, job.tally)
    except Exception as error:
        job.log.warning(
            "Prefect did not accept the end of the run (%s). Automations may miss it.", type(error).__name__
        )


def _described(flow: str, report: RunReport) -> str:
    """Return what a reader of a table of rows has to know about the run: whose it is, its state, and what is wrong."""
    return " ".join((f"Rows of the last run of {report.integration} ({flow}, {report.state}).", *report.sentences))


def _report(job: Job) -> RunReport:
    tally, name = job.tally, job.run.settings.klaviyo_integration
    return RunReport(job.run.id, name, tally.state, tuple(tally.sentences), tally.exit_code, job.run.is_limited)


def state_name(state: RunState) -> str:
    """Return the name of Prefect's state of a run that has ended in this one."""
    return state.capitalize()


def state_of(report: RunReport, rows: str | None = None) -> State[Any]:
    """Return Failed, Cancelled or Completed; by the name of the run's state, such as Partial, if that says more.

    Its message has the sentences of the run, and the one about its rows.
    """
    message = " ".join(filter(None, [*report.sentences, rows])) or None
    if report.state is RunState.STOPPED:
        return Cancelled(name=state_name(report.state), message=message, data=RunFailed(report))
    if report.state is RunState.FAILED:
        return Failed(message=message, data=RunFailed(report))
    if report.state is RunState.COMPLETE:
        return Completed(message=message, data=report)
    return Completed(name=state_name(report.state), message=message, data=report)
