"""The page of a report: a template, its style sheet and its script in one HTML file that loads nothing else.

Every text of the warehouse is escaped, without control characters, and without addresses. Knows no database.
"""

from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from hashlib import sha256
from importlib.resources import files
from itertools import groupby
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from klaviyo_pg import extras
from klaviyo_pg.foreign import LONGEST_MESSAGE, printable
from klaviyo_pg.postgres.html_report import Consent, PastRun, Revenue
from pipeline.commands.html_report import charts
from pipeline.commands.html_report.contents import DAYS, REVENUE_DAYS, AccountReport, Report, needs_attention
from pipeline.coverage import Coverage, Covered, by_period
from transforms.personal import shown_name

_STALE = 48.0  # hours, after which a stream needs attention
_MOST_COLUMNS = 180  # of a strip
_MOST_BARS = 12
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def render(report: Report) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("pipeline.commands.html_report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    minute = partial(_minute, zone=report.zone)
    environment.filters |= {"number": _number, "size": size, "duration": _duration, "minute": minute, "money": _money}
    style, script = (_resource(name) for name in ("report.css", "report.js"))
    return environment.get_template("report.html").render(
        report=report,
        accounts=[
            (f"a{number}", account, _drawn(account, report.zone)) for number, account in enumerate(report.accounts, 1)
        ],
        has_charts=charts.is_available(),
        install_charts=extras.command("pictures"),
        table_chart=_table_chart(report),
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        states=list(Covered),
        strips=_strips,
        needs_attention=needs_attention,
        days=DAYS,
        revenue_days=REVENUE_DAYS,
        stale=_STALE,
    )


def _resource(name: str) -> str:
    return (files("pipeline.commands.html_report") / "templates" / name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """Return a content security policy: the page loads nothing, and runs this script only."""
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src {_digest(style)}",
            f"script-src {_digest(script)}",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _digest(text: str) -> str:
    """Return the source expression that allows exactly this inline text."""
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


def _shown(value: object) -> object:
    """Return what is written for a value; markup and numbers stay as they are."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return shown_name(printable(str(value), LONGEST_MESSAGE)) if is_text else value


def _strips(covered: Coverage) -> Iterator[tuple[str, Mapping[Covered, int], bool, Markup]]:
    """Yield each metric, its days by state, whether it needs attention, and its days as shapes of an SVG."""
    step = -(-((covered.last - covered.first).days + 1) // _MOST_COLUMNS)
    for name, days in covered.days.items():
        counts = {kind: days.count(kind) for kind in Covered}
        yield name, counts, bool(counts[Covered.DIFFERS]), _strip(by_period(days, step))


def _strip(columns: Sequence[Covered]) -> Markup:
    shapes: dict[Covered, str] = {}
    at = 0
    for kind, group in groupby(columns):
        width = len(list(group))
        shapes[kind] = f"{shapes.get(kind, '')}M{at} 0h{width}v1h-{width}z"
        at += width
    paths = (Markup('<path class="{}" d="{}"/>').format(kind.name.lower(), d) for kind, d in shapes.items())
    head = Markup('<svg class="strip" viewBox="0 0 {} 1" preserveAspectRatio="none" aria-hidden="true">').format(at)
    return head + Markup("").join(paths) + Markup("</svg>")


def _drawn(account: AccountReport, zone: ZoneInfo) -> Mapping[str, Markup]:
    """Return the charts of an account by name: those for which there is something to draw."""
    return {name: Markup(svg) for name, svg in _charts(account, zone)} if charts.is_available() else {}


def _charts(account: AccountReport, zone: ZoneInfo) -> Iterator[tuple[str, str]]:
    covered, days = account.coverage.value, account.requests.value
    if covered is not None and covered.days:
        yield "coverage", charts.metrics_by_day(covered)
    if days:
        first = {"first attempts": [each.requests - each.retries for each in days]}
        series = {**first, "retries": [each.retries for each in days]}
        yield "requests", charts.by_day([each.day for each in days], series, "requests", DAYS)
    if runs := [run for run in account.runs.value if run.finished_at]:
        names = [f"{run.flow}, {run.started_at.astimezone(zone):%d %b %H:%M}" for run in runs]
        yield "runs", charts.by_name(names, {"duration": [_seconds(run) / 60 for run in runs]}, "minutes")
    if people := account.consents.value.rows:
        yield "consent", _consent_chart(people)
    for name, rows in (("campaigns", account.campaigns.value), ("flows", account.flows.value)):
        if rows:
            values = [_drawable(each.revenue) for each in rows]
            yield (
                name,
                charts.by_name([shown_name(each.name) for each in rows], {"revenue": values}, account.currency or ""),
            )


def _drawable(value: Decimal | None) -> float:
    """Return a value as the length of a bar; a warehouse can also have NaN and infinity."""
    return float(value) if value is not None and value.is_finite() else 0.0


def _consent_chart(people: Sequence[Consent]) -> str:
    channels = sorted({each.channel for each in people})

    def counted(channel: str, can_receive: bool | None) -> int:
        return sum(each.people for each in people if (each.channel, each.can_receive) == (channel, can_receive))

    kinds = {"can receive": True, "cannot receive": False, "unknown": None}
    series = {name: [counted(channel, kind) for channel in channels] for name, kind in kinds.items()}
    return charts.by_name(channels, {name: values for name, values in series.items() if any(values)}, "people")


def _table_chart(report: Report) -> Markup | None:
    tables = report.tables.value[:_MOST_BARS]
    if not tables or not charts.is_available():
        return None
    series = {"rows": [each.size - each.indexes for each in tables], "indexes": [each.indexes for each in tables]}
    return Markup(charts.by_name([each.name for each in tables], series, "bytes"))


def _seconds(run: PastRun) -> float:
    return (run.finished_at - run.started_at).total_seconds() if run.finished_at else 0.0


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.0f}"


def _money(row: Revenue) -> str:
    return "no value" if row.revenue is None else f"{row.revenue:,.2f} {row.currency or ''}".strip()


def _duration(run: PastRun) -> str:
    return str(timedelta(seconds=round(_seconds(run)))) if run.finished_at else "not finished"


def _minute(moment: datetime | None, zone: ZoneInfo) -> str:
    return "never" if moment is None else f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def size(number: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in _UNITS[:-1]:
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.{0 if number >= 1000 else 1}f} {_UNITS[-1]}"
