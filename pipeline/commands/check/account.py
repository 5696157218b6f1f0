"""The check of an account before its first run: the key, each stream's scope, and the requests that runs will need."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from klaviyo_pg.errors import KlaviyoPgError, MissingScope, NotFound, Refused, UserError
from klaviyo_pg.klaviyo.pace import Pace
from klaviyo_pg.klaviyo.source import Source
from klaviyo_pg.settings import Settings
from klaviyo_pg.windows import OpenWindow
from pipeline import checks
from pipeline.commands.check import sizes
from pipeline.commands.check.forecast import COUNTS, KEY, Forecast, forecast
from pipeline.commands.check.sizes import Known, OnProgress
from pipeline.streams import STREAMS
from pipeline.streams.dimensions import LISTS, METRICS, SEGMENTS
from pipeline.streams.events import EVENTS
from pipeline.streams.on_request import COUPONS
from pipeline.streams.segments import chosen
from pipeline.streams.selection import Selection
from pipeline.streams.stream import Probe, Stream
from transforms.routing import KnownMetric, check_destinations

YES = "yes"
_NO_SUBJECT = {"list": "no lists", "segment": "none chosen", "coupon": "no coupons"}


class Access(NamedTuple):
    """The answer to the first request of a stream: whether the API allows it, and the endpoint that was asked."""

    text: str
    endpoint: str = ""
    error: KlaviyoPgError | None = None

    @property
    def is_allowed(self) -> bool:
        """True if the API did not refuse it."""
        return self.error is None


@dataclass
class AccountFindings:
    """The findings of the check of an account. `limits` are the requests per minute of each endpoint."""

    errors: list[KlaviyoPgError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    account_id: str | None = None
    timezone: str | None = None
    access: dict[str, Access] = field(default_factory=dict)
    forecast: dict[str, Forecast] = field(default_factory=dict)
    endpoints: dict[str, str] = field(default_factory=dict)
    limits: dict[str, int | None] = field(default_factory=dict)

    def add(self, error: KlaviyoPgError) -> None:
        """Add an error, unless the same was found before."""
        if str(error) not in map(str, self.errors):
            self.errors.append(error)


class AccountCheck:
    """One check of an account through a source whose requests are paced by `pace`."""

    def __init__(self, source: Source, pace: Pace, settings: Settings, wanted: Selection, as_of: datetime) -> None:
        self._source, self._pace, self._settings, self._wanted, self._as_of = source, pace, settings, wanted, as_of
        self._answers: dict[tuple[Probe, str | None], Access] = {}
        self._rows: dict[str, list[Any]] = {}
        self._full_reads: dict[str, int] = {}
        self._key_endpoint = ""
        self.findings = AccountFindings()

    def run(self, with_forecast: bool, progress: OnProgress) -> AccountFindings:
        """Try the key and each stream, and then forecast the requests, if the key is accepted."""
        findings = self.findings
        try:
            described = checks.fetch_account(self._source, self._settings, findings.warnings.append)
            findings.account_id = described.id if described else self._settings.klaviyo_account_id
            findings.timezone = described.timezone if described else None
            self._key_endpoint = next(iter(self._pace.sent), "")
            for stream in self._streams():
                progress(f"Trying {stream.name}")
                findings.access[stream.name] = self._tried(stream, with_forecast)
            check_destinations(self._settings.destinations)
            checks.check_named_metrics(self._settings, self._metrics)
            self._check_segments()
            if with_forecast:
                self._forecast(progress)
        except KlaviyoPgError as error:
            findings.add(error)
        return findings

    def _streams(self) -> Iterator[Stream]:
        return (stream for name, stream in STREAMS.items() if name in self._wanted.streams)

    def _tried(self, stream: Stream, with_forecast: bool) -> Access:
        """Send the smallest request of a stream; of a full read that is forecast, all requests. Streams share answers.

        Raises UserError, which concerns all streams.
        """
        subject = self._subject(stream)
        if stream.is_one_collection:
            needed = (METRICS, LISTS, SEGMENTS) if self._settings.segments else (METRICS, LISTS)
            return self._read(stream, None if with_forecast or stream in needed else 1)
        if stream.subject in _NO_SUBJECT and subject is None:
            return Access(_NO_SUBJECT[stream.subject])
        if (stream.probe, subject) not in self._answers:
            self._answers[stream.probe, subject] = self._read(stream, 1, subject)
        return self._answers[stream.probe, subject]

    def _subject(self, stream: Stream) -> str | None:
        if stream.subject == "segment":
            return next(iter(self._segments), None)
        first = {"metric": METRICS.name, "list": LISTS.name, "coupon": COUPONS.name}.get(stream.subject or "", "")
        return next((row.id for row in self._rows.get(first, ())), None)

    def _read(self, stream: Stream, most: int | None, subject: str | None = None) -> Access:
        """Read a number of pages of a stream, or all, and note the rows and the requests."""
        before, sent, rows = self._source.traffic, dict(self._pace.sent), list[Any]()
        error: KlaviyoPgError | None = None
        try:
            pages = stream.probe(self._source, self._latest, subject)
            for number, page in enumerate(pages, 1):
                error = error or page.incomplete
                rows += page.rows if stream.is_one_collection else ()
                if number == most:
                    break
        except UserError:
            raise
        except KlaviyoPgError as refusal:
            error = refusal
        if stream.is_one_collection:
            self._rows[stream.name] = rows
            self._full_reads[stream.name] = self._source.traffic.since(before).requests
        if error is not None and not (stream.is_optional and isinstance(error, MissingScope | Refused)):
            self.findings.add(_named(stream, error))
        return Access(_text(error), self._endpoint(sent), error)

    @property
    def _latest(self) -> OpenWindow:
        """The last few minutes. The API refuses times in its future, and this machine's clock may be ahead of it."""
        return OpenWindow(self._as_of - timedelta(seconds=self._settings.clock_tolerance_seconds))

    def _endpoint(self, sent: Mapping[str, int]) -> str:
        return next((name for name, number in self._pace.sent.items() if number > sent.get(name, 0)), "")

    @property
    def _segments(self) -> list[str]:
        """The segments that SEGMENTS names, among those that could be read."""
        return chosen(self._settings.segments, self._rows.get(SEGMENTS.name, ())).ids

    def _check_segments(self) -> None:
        segments = self.findings.access.get(SEGMENTS.name)
        if segments and segments.is_allowed:
            for error in chosen(self._settings.segments, self._rows[SEGMENTS.name]).errors:
                self.findings.add(error)

    @property
    def _metrics(self) -> list[KnownMetric]:
        return [KnownMetric(row.id, row.name) for row in self._rows.get(METRICS.name, ())]

    def _forecast(self, progress: OnProgress) -> None:
        findings, before = self.findings, dict(self._pace.sent)
        allowed = frozenset(name for name, access in findings.access.items() if access.is_allowed)
        known = Known(
            self._full_reads,
            self._metrics,
            [row.id for row in self._rows.get(LISTS.name, ())],
            self._segments,
            [row.id for row in self._rows.get(COUPONS.name, ())],
        )
        measured = sizes.measure(self._source, self._settings, self._wanted, allowed, known, self._as_of, progress)
        made = forecast(measured, self._settings, self._wanted, self._as_of)
        findings.forecast = {name: each for name, each in made.items() if name in allowed or name in (KEY, COUNTS)}
        if EVENTS.name not in allowed:
            findings.forecast.pop(COUNTS, None)
        findings.endpoints = {name: access.endpoint for name, access in findings.access.items()}
        findings.endpoints[KEY] = self._key_endpoint
        findings.endpoints[COUNTS] = next((each for each in self._pace.sent if each not in before), "")
        findings.limits = {each: self._pace.requests_per_minute(each) for each in findings.endpoints.values()}


def _named(stream: Stream, error: KlaviyoPgError) -> KlaviyoPgError:
    """Return an error whose sentence says which stream it concerns and what runs do."""
    if isinstance(error, NotFound):
        return Refused(f"Klaviyo does not offer {stream.name} to this account (404). Runs leave it out.")
    return error


def _text(error: KlaviyoPgError | None) -> str:
    match error:
        case None:
            return YES
        case MissingScope():
            return "no scope"
        case NotFound():
            return "not offered"
        case Refused():
            return "refused"
    return "not answered"
