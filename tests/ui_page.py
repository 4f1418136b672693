"""A browser's page on Dagster's UI, in the words of the tests."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from playwright.sync_api import FloatRect, Locator, Page, ViewportSize, expect, sync_playwright
from processes import poll

CHROMIUM = next(filter(Path.exists, map(Path, ("/usr/bin/chromium-headless-shell", "/usr/bin/chromium"))), None)
"""The first has no windows at all, and takes a quarter less CPU time."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LONGEST_WAIT = 90_000
"""Milliseconds, for a machine that does much else."""
LONGEST_RUN = 270
"""Seconds; a run is a new process that imports everything."""
VIEWPORT: ViewportSize = {"width": 1500, "height": 2000}
"""High enough for all entities: Dagster renders only the rows in sight."""
PICTURE: FloatRect = {"x": 240, "y": 0, "width": 1260, "height": 900}
"""What is shown to the right of Dagster's navigation."""
ENDED = {"SUCCESS": "Success", "FAILURE": "Failure", "CANCELED": "Canceled"}
"""What a page says of a run in this status."""
FOLLOW = "path => { history.pushState(null, '', path); dispatchEvent(new PopStateEvent('popstate')) }"
"""What a link does, in words that any router of a page understands."""
WAITING_ROOM = "/deployment/concurrency"
"""A page that asks for next to nothing while it is open."""
STATUS = "query Status($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
RUN = """
query Run($id: ID!) {
  runOrError(runId: $id) { ... on Run { status assetMaterializations { assetKey { path } } } }
}
"""
PARTITIONS = """
query Partitions($asset: [String!]!) {
  assetNodeOrError(assetKey: {path: $asset}) { ... on AssetNode { partitionStats { numMaterialized } } }
}
"""
RUNS = "query Runs { runsOrError { ... on Runs { results { runId jobName status } } } }"
SCHEDULE = """
query Schedule($name: String!) {
  scheduleOrError(scheduleSelector: {
    repositoryLocationName: "m3ter_dagster", repositoryName: "__repository__", scheduleName: $name
  }) { ... on Schedule { scheduleState { status } } }
}
"""
TICKS = """
query Ticks($name: String!) {
  sensorOrError(sensorSelector: {
    repositoryLocationName: "m3ter_dagster", repositoryName: "__repository__", sensorName: $name
  }) { ... on Sensor { sensorState { ticks(limit: 1, statuses: [SKIPPED, SUCCESS, FAILURE]) { timestamp } } } }
}
"""


@dataclass(frozen=True)
class UI:
    page: Page
    address: str

    def open(self, path: str) -> None:
        """As a link in the open page does: the scripts, megabytes, are not loaded, compiled and run again."""
        if self.page.url.startswith(self.address):
            self.page.evaluate(FOLLOW, path)
        else:
            self.page.goto(self.address + path)

    def select(self, *assets: str) -> None:
        """Tick the assets in a list of assets."""
        for asset in assets:
            link = self.page.locator(f'a[href="/assets/{asset}"]')
            self.page.locator("div:has(input[type=checkbox])", has=link).last.locator("label").click()

    def picture(self, name: str) -> None:
        """Keeps what is seen for the documentation, if M3TER_PICTURES names a folder (`make pictures`)."""
        if folder := os.environ.get("M3TER_PICTURES"):
            self.page.screenshot(path=Path(folder, f"{name}.png"), clip=PICTURE)

    def materialize(self) -> Locator:
        """The button, once it can be clicked."""
        return self.page.locator("button:enabled", has_text="Materialize").first

    def view_launched_run(self) -> None:
        """Follow the note that a run was launched, which goes soon; it comes only when no question was asked."""
        run = self.page.get_by_role("link", name="View", exact=True).get_attribute("href")
        assert run
        self.open(run)

    def re_execute_from_failure(self, run_id: str) -> None:
        """The page of the new run opens."""
        self.open(f"/runs/{run_id}")
        failed = self.page.url
        self.page.locator("button", has_text="Re-execute").locator("xpath=following::button[1]").click()
        self.page.get_by_role("menuitem", name=re.compile("From failure$")).click()
        self.page.wait_for_url(lambda url: "/runs/" in url and url != failed)

    def backfill(self, first: str, last: str) -> None:
        """On the page of a partitioned asset."""
        self.materialize().click()
        dialog = self.page.locator(".dagster-dialog")
        chosen = dialog.get_by_role("textbox").first
        chosen.fill(f"[{first}...{last}]")
        chosen.press("Enter")
        dialog.get_by_role("button", name="Launch backfill").click()
        expect(dialog).to_be_hidden()

    def ended_run(self, status: str = "SUCCESS") -> tuple[str, list[str]]:
        """The id of the run whose page opens, once it ended this way, and the assets that it materialized.

        Its page says how it ended, and is left: it goes on asking while a test waits for something else.
        """
        self.page.wait_for_url("**/runs/*")
        run_id = self.page.url.rsplit("/", 1)[1]
        self._wait(
            lambda: self._query(STATUS, id=run_id)["runOrError"]["status"] in ENDED,
            f"the end of run {run_id}",
        )
        self.open(f"/runs/{run_id}")
        run = self._query(RUN, id=run_id)["runOrError"]
        assert run["status"] == status
        expect(self.page.get_by_text(ENDED[status], exact=True).first).to_be_visible()
        self.open(WAITING_ROOM)
        return run_id, sorted("/".join(one["assetKey"]["path"]) for one in run["assetMaterializations"])

    def materialized_partitions(self, asset: str, number: int) -> None:
        """Waits until there are as many."""

        def found() -> bool:
            node = self._query(PARTITIONS, asset=[asset])["assetNodeOrError"]
            return node["partitionStats"]["numMaterialized"] == number

        self._wait(found, f"{number} partitions of {asset}")

    def runs(self) -> set[str]:
        """The ids of all runs."""
        return {run["runId"] for run in self._query(RUNS)["runsOrError"]["results"]}

    def succeeded_runs(self, job: str) -> list[str]:
        """The ids of the runs of the job that have succeeded, once there are any."""

        def found() -> list[str]:
            runs = self._query(RUNS)["runsOrError"]["results"]
            return [run["runId"] for run in runs if (run["jobName"], run["status"]) == (job, "SUCCESS")]

        self._wait(lambda: bool(found()), f"a run of {job}")
        return found()

    def schedule_is(self, status: str, name: str) -> None:
        """Waits until the schedule has the status that its toggle, on the page that stays open, shows."""

        def found() -> bool:
            return self._query(SCHEDULE, name=name)["scheduleOrError"]["scheduleState"]["status"] == status

        poll(found, f"{name} {status}", LONGEST_RUN)

    def sensor_has_looked(self, name: str, since: datetime) -> None:
        """Waits until a tick of the sensor that began after this moment has ended."""

        def looked() -> bool:
            ticks = self._query(TICKS, name=name)["sensorOrError"]["sensorState"]["ticks"]
            return bool(ticks) and ticks[0]["timestamp"] > since.timestamp()

        self._wait(looked, f"a tick of {name}")

    def reload_definitions(self) -> None:
        """By the button beside the code location, which cannot be clicked meanwhile."""
        self.open("/deployment/locations")
        reload = self.page.locator("button", has_text=re.compile("^Reload$"))
        reload.click()
        expect(reload).to_be_disabled()
        expect(reload).to_be_enabled()

    def _query(self, query: str, **variables: Any) -> dict[str, Any]:
        asked = {"query": query, "variables": variables}
        return self.page.request.post(f"{self.address}/graphql", data=asked).json()["data"]

    def _wait(self, look: Callable[[], bool], what: str) -> None:
        """Away from the pages of runs and assets: one that shows a run at work takes more CPU time than the run."""
        self.open(WAITING_ROOM)
        poll(look, what, LONGEST_RUN)


@contextmanager
def chromium_page() -> Iterator[Page]:
    """One for all tests, or the browser would fetch and compile Dagster's megabytes of scripts for each anew."""
    expect.set_options(timeout=LONGEST_WAIT)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS) as browser,
        browser.new_page() as page,
    ):
        page.set_default_timeout(LONGEST_WAIT)
        yield page
