"""Reads a sandbox account over HTTP in either dialect, as plainly as can be: no retries, no checks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import requests

from sandbox.launcher import Sandbox

LONG_AGO = "1000000000"
REVISION = "2026-07-15"


@dataclass(frozen=True)
class Reader:
    """Asks one sandbox."""

    box: Sandbox
    timeout: float = 30
    key: str | None = None  # the account's own where not given

    def current(self, path: str, parameters: dict[str, Any] | None = None) -> requests.Response:
        """A GET of the current dialect: a path below /api/, or a link."""
        url = path if path.startswith("http") else f"{self.box.url}/api/{path}"
        headers = {"Authorization": f"Klaviyo-API-Key {self.key or self.box.api_key}", "revision": REVISION}
        return requests.get(url, parameters, headers=headers, timeout=self.timeout, allow_redirects=False)

    def legacy(self, path: str, parameters: dict[str, Any] | None = None) -> requests.Response:
        """A GET of v1 or v2: a path below /api/."""
        given = {"api_key": self.box.api_key, **(parameters or {})}
        url = f"{self.box.url}/api/{path}"
        return requests.get(url, given, timeout=self.timeout, allow_redirects=False)

    def ask(self, path: str, **parameters: Any) -> requests.Response:
        """A GET of the current dialect; page__size stands for page[size]."""
        named = {name.replace("__", "[") + "]" * ("__" in name): value for name, value in parameters.items()}
        return self.current(path, named)

    def rows(self, path: str, **parameters: Any) -> list[dict[str, Any]]:
        """All rows of all pages of the current dialect."""
        answer, found = self.ask(path, **parameters), list[dict[str, Any]]()
        while True:
            assert answer.status_code == 200, answer.text
            found += answer.json()["data"]
            following = answer.json()["links"]["next"]
            if following is None:
                return found
            answer = self.current(following)

    def ids(self, path: str, **parameters: Any) -> list[str]:
        """The ids of all rows."""
        return [row["id"] for row in self.rows(path, **parameters)]

    def timeline(self, path: str = "v1/metrics/timeline") -> Iterator[dict[str, Any]]:
        """All events of a timeline of the legacy dialect."""
        following: str | None = LONG_AGO
        while following is not None:
            page = self.legacy(path, {"since": following, "sort": "asc", "count": "100"}).json()
            yield from page["data"]
            following = page["next"]

    def numbered(self, path: str) -> list[dict[str, Any]]:
        """The first page of a collection of v1, as long as it may be."""
        return list(self.legacy(path, {"count": "100"}).json()["data"])

    def counts(self, metric_id: str, day: str, after: str, interval: str = "day") -> list[int]:
        """What the aggregates of the current dialect say of a metric, in the half-open days."""
        asked = {
            "metric_id": metric_id,
            "measurements": ["count"],
            "interval": interval,
            "filter": [f"greater-or-equal(datetime,{day})", f"less-than(datetime,{after})"],
        }
        answer = requests.post(
            f"{self.box.url}/api/metric-aggregates",
            json={"data": {"type": "metric-aggregate", "attributes": asked}},
            headers={"Authorization": f"Klaviyo-API-Key {self.box.api_key}", "revision": REVISION},
            timeout=self.timeout,
        )
        return list(answer.json()["data"]["attributes"]["data"][0]["measurements"]["count"])

    def legacy_counts(self, metric_id: str, day: str, after: str) -> list[int]:
        """The same of the legacy dialect."""
        asked = {"start_date": day, "end_date": after, "unit": "day", "measurement": "count"}
        answer = self.legacy(f"v1/metric/{metric_id}/export", asked).json()
        return [step["values"][0] for step in answer["results"][0]["data"]]
