"""A list whose records are also listed parent by parent: over its cursor, or side by side where that is faster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from statistics import median

from m3ter_dagster.m3ter.client import Page
from m3ter_dagster.m3ter.errors import M3terError
from m3ter_dagster.model.entity import Listing
from m3ter_dagster.reading.collectors import Record, RecordIds, records
from m3ter_dagster.reading.pages import Pages

SAMPLE = 16
"""Of how many parents the rows are counted before the choice is made."""
SAMPLE_PAGES = 3
"""How many pages of each are read for that: if there are more, it does not matter how many."""


class ReadAnew(Exception):
    """What was read of the list must be dropped: it is read in another way."""


class Unsuitable(M3terError):
    """Why a list cannot be read parent by parent."""


@dataclass(frozen=True)
class Outlook:
    """The two ways to read a list, as far as they can be estimated."""

    parent: str
    parents: int
    rows_per_parent: float
    is_at_least: bool
    """There are more rows than were counted, so both ways take longer."""
    requests: int
    """Parent by parent: they are made side by side."""
    requests_before: int
    """Those that are made side by side for other lists, at the same pace."""
    request_seconds: float
    pages: int
    """Over the cursor: each waits for the one before."""
    page_seconds: float

    def is_faster_by_parent(self, advantage: float) -> bool:
        seconds = (self.requests + self.requests_before) * self.request_seconds
        return seconds * advantage < self.pages * self.page_seconds

    def words(self, *, by_parent: bool) -> str:
        about = "at least" if self.is_at_least else "about"
        parents = f"{self.parent} by {self.parent} ({self.parents:,} with {about} {self.rows_per_parent:.0f} rows each)"
        requests = f"{about} {self.requests:,} requests side by side in {self.requests * self.request_seconds:,.0f} s"
        pages = f"{about} {self.pages:,} more pages one after the other in {self.pages * self.page_seconds:,.0f} s"
        if by_parent:
            return f"{parents}: {requests}, instead of {pages}"
        return f"over one cursor: {pages}, instead of {parents}: {requests}"


class LongList:
    """Begins over the cursor, and chooses once the parents are known. `how` says what was chosen, and why.

    Parent by parent nothing is lost: the list of the parents was read to its end in this run, so is the list of each
    of them, and a last look at the newest records finds the parents that came in between. That every record belongs to
    a parent that m3ter has is held against all pages that come before the choice, and against the newest ones after:
    one that does not, and all is read over the cursor. The rows come in the order of the parents, not in the list's.
    """

    def __init__(
        self,
        listing: Listing,
        pages: Pages,
        parents: Callable[[], Future[RecordIds]],
    ) -> None:
        """`parents` gives the ids that others read anyway, or begins to read them: a short list does not need them."""
        assert listing.per_parent
        self.how: str | None = None
        self._listing = listing
        self._parent = listing.per_parent.entity.replace("_", " ")
        self._field = listing.per_parent.field
        self._pages = pages
        self._ask_for_parents = parents
        self._parents: Future[RecordIds] | None = None
        self._is_by_parent = False
        self._seen: set[str] = set()
        self._seen_owners: dict[str, None] = {}
        self._ids: Sequence[str] = ()
        self._spared: dict[str, None] = {}
        self._gone: list[str] = []

    def see_newest(self) -> None:
        """Look at what is there now, before the parents are known: what is newer will be found by the last look."""
        self._see(next(iter(self._pages.newest(self._listing))))

    def spare(self, spared: Iterable[str], ids: Sequence[str], why: str) -> None:
        """From now on go parent by parent over `ids`, and request nothing of those that are `spared`."""
        self._spared, self._ids = dict.fromkeys(spared), ids
        self._is_by_parent, self.how = True, why

    @property
    def is_sparing(self) -> bool:
        """Whether the rows of the spared parents have to come from elsewhere."""
        return self._is_by_parent and bool(self._spared)

    def pages(self) -> Iterator[Page]:
        """Every page. ReadAnew, CursorExpired: what was read must be dropped, and this called again."""
        return self._by_parent() if self._is_by_parent else self._over_cursor()

    def _over_cursor(self) -> Iterator[Page]:
        seconds, rows = list[float](), 0
        with closing(self._pages.over_cursor(self._listing)) as pages:
            for page in pages:
                seconds.append(page.seconds)
                yield page
                if self.how or page.is_last:
                    continue
                try:
                    rows += self._see(page)
                    if len(seconds) >= self._pages.limits.pages_before_choice:
                        self._choose(len(seconds), rows, median(seconds))
                except M3terError as reason:
                    self.how = f"over one cursor, not {self._parent} by {self._parent}: {reason}"
                if self._is_by_parent:
                    raise ReadAnew

    def _see(self, page: Page) -> int:
        """Remember which records were there when it all began, and whose they are."""
        found = records(page.rows, self._field)
        self._seen.update(_ids(found))
        self._seen_owners |= self._owners(found)
        return len(found)

    def _owners(self, found: Sequence[Record]) -> dict[str, None]:
        if not all(isinstance(record.parent, str) and record.parent for record in found):
            raise Unsuitable(f"there are rows without {self._field}")
        return {str(record.parent): None for record in found}

    def _choose(self, pages: int, rows: int, page_seconds: float) -> None:
        self._parents = self._parents or self._ask_for_parents()
        if not self._parents.done():
            return
        if failure := self._parents.exception():
            raise Unsuitable(f"the {self._parent} records cannot be listed: {failure}")
        parents, limits = self._parents.result(), self._pages.limits
        if parents.missing:
            raise Unsuitable(f"{parents.missing} of the {self._parent} records have no id")
        self._ids = parents.unique()
        sample = self._ids[:: max(1, len(self._ids) // SAMPLE)][:SAMPLE]
        requests, found, is_at_least = self._sampled(sample)
        each = 1 / max(1, len(sample))
        outlook = Outlook(
            parent=self._parent,
            parents=len(self._ids),
            rows_per_parent=found * each,
            is_at_least=is_at_least,
            requests=round(requests * each * len(self._ids)),
            requests_before=self._pages.to_come,
            request_seconds=max(self._pages.seconds_per_request, page_seconds / limits.requests_at_once),
            pages=max(0, round(found * each * len(self._ids) / max(1, rows / pages)) - pages),
            page_seconds=max(page_seconds, self._pages.seconds_per_request),
        )
        self._is_by_parent = outlook.is_faster_by_parent(limits.advantage)
        self.how = outlook.words(by_parent=self._is_by_parent)

    def _sampled(self, ids: Sequence[str]) -> tuple[int, int, bool]:
        """How many requests and rows these parents have, and whether it is even more."""
        pages = list(self._pages.side_by_side(self._listing, ids, at_most=SAMPLE_PAGES))
        found = [record for page in pages for record in records(page.rows, self._field)]
        if not self._owners(found).keys() <= set(ids):
            raise Unsuitable(f"the rows of one {self._parent} name another")
        return len(pages), len(found), sum(page.is_last for page in pages) < len(ids)

    def _by_parent(self) -> Iterator[Page]:
        known = dict(self._spared)
        new = {one: None for one in self._ids if one not in known}
        try:
            while True:
                yield from self._pages.side_by_side(self._listing, new, gone=self._gone)
                known |= new
                if not (new := self._come_in_between(known)):
                    break
        except M3terError as reason:
            self._is_by_parent = False
            self.how = f"over one cursor after all, since {self._parent} by {self._parent} failed: {reason}"
            raise ReadAnew from reason
        self.how = f"{self.how}{self._remarks(len(known) - len(self._ids))}"

    def _come_in_between(self, known: dict[str, None]) -> dict[str, None]:
        """The parents of records that came since the beginning: the newest records are the first of the list."""
        new, owners, is_past = dict[str, None](), dict(self._seen_owners), False
        for page in self._pages.newest(self._listing):
            found = records(page.rows, self._field)
            owners |= self._owners(found)
            new = {owner: None for owner in owners if owner not in known}
            is_past = is_past or not self._seen.isdisjoint(_ids(found))
            if is_past and not self._owners(found).keys() - known:
                break
        if not owners.keys().isdisjoint(self._gone):
            raise Unsuitable(f"m3ter listed rows of a {self._parent} and says with status 404 that there is none")
        return new

    def _remarks(self, new: int) -> str:
        gone = len(self._gone)
        return (f"; {new:,} more came in between" if new else "") + (
            f"; {gone:,} no longer there, says m3ter with status 404, and so without rows" if gone else ""
        )


def _ids(found: Sequence[Record]) -> Iterator[str]:
    return (record.id for record in found if isinstance(record.id, str))
