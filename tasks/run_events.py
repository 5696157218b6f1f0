"""Events at the end of a run, to which Prefect's automations react. They name the account, which states do not."""

from prefect.events import emit_event

from klaviyo_pg.foreign import printable
from klaviyo_pg.states import RunState
from pipeline.outcome import RunReport, Tally
from tasks.naming import slug

QUOTA = "klaviyo-pg.quota-used-up"
NEW_METRICS = "klaviyo-pg.new-metrics"


def event_of(flow: str, state: RunState, is_limited: bool = False) -> str:
    """Return the name of the event with which a run of a flow ends, such as klaviyo-pg.daily.complete.

    A run that arguments limited has another one, such as klaviyo-pg.daily.limited.complete: it says nothing about the
    rest of the data.
    """
    return f"klaviyo-pg.{flow}{'.limited' if is_limited else ''}.{state.replace(' ', '-')}"


def announce(flow: str, report: RunReport, tally: Tally) -> None:
    """Emit the event of a run that has ended, and others if Klaviyo's quota is used up or the account has new metrics.

    Their resource is the account, so that an automation can watch each account for itself.
    """
    others = {QUOTA: tally.is_quota_used_up, NEW_METRICS: tally.has_new_metrics}
    names = [name for name, has_happened in others.items() if has_happened]
    for name in (event_of(flow, report.state, report.is_limited), *names):
        emit_event(
            event=name,
            resource={
                "prefect.resource.id": f"klaviyo-pg.account.{slug(report.integration)}",
                "prefect.resource.name": printable(report.integration),
            },
            payload={"flow": flow, "run_id": report.run_id, "message": printable(" ".join(report.sentences))},
        )
