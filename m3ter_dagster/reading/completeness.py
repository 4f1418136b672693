"""Reads on until nothing of a list is missing, although its records move while it is read.

m3ter documents that lists come newest first, but neither a snapshot nor what a cursor points to. Where a cursor counts
rows, each record that is deleted before it lets another fall out between two pages. One answer is never torn, so a
list of one page has nothing to prove; what follows for longer ones holds whatever the cursor is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import polars as pl

from m3ter_dagster.frames.absence import ID, KEY, PARENT, RECORDS, VERSION, absent, hashes, hold
from m3ter_dagster.frames.schema import SchemaBreached
from m3ter_dagster.m3ter.client import Page
from m3ter_dagster.m3ter.errors import CursorExpired, Refused
from m3ter_dagster.model.entity import Listing
from m3ter_dagster.reading.asking import PARENTS_AT_ONCE, SIZES, Asking, recorded_of, sized
from m3ter_dagster.reading.collectors import records
from m3ter_dagster.reading.id_filter import ids_of, only
from m3ter_dagster.reading.pages import Pages
from m3ter_dagster.reading.reading import Completeness

SHORT = 100
"""Of how many pages a list is read a third time although the second found nothing that had fallen out."""


_JOINED = 256
"""How many pages' hashes are kept by themselves before they become one column, which is smaller."""


class Completing:
    """Reads one list to its end, and then whatever is needed so that nothing of it is missing.

    With the records of an `earlier` export, each that was there and was not read is asked for, and what is newer than
    all of them is read again. Without, or if `two_passes` says so, the whole list is. A list is read again, each time
    with pages of another size, until nothing was deleted between two passes: if all that one pass has read is still
    there in the next, nothing can have fallen out of the first.
    """

    def __init__(
        self,
        listing: Listing,
        pages: Pages,
        recorded: Callable[[], pl.LazyFrame],
        earlier: Callable[[], pl.LazyFrame | None],
        *,
        two_passes: bool | None = None,
    ) -> None:
        """`recorded` gives what has been read so far, and both give `absence.RECORDS`.

        `two_passes` None: only where there is no earlier export; False: not even there.
        """
        self._listing = listing
        self._pages = pages
        self._recorded = recorded
        self._find_earlier = earlier
        self._two_passes = two_passes
        self._asking = Asking(listing, pages, recorded)
        self._first: Sequence[str] = ()
        self._is_long = False
        self._long_parents: dict[str, None] = {}
        self._passes = 1
        self._requests = 0
        self._recovered = 0
        self._has_asked = False
        self._gone: set[str] = set()
        self._proof = "each list came in one answer"
        self._doubts: list[str] = []

    @property
    def result(self) -> Completeness:
        doubts = [*self._doubts, *self._asking.doubts]
        return Completeness(
            passes=self._passes,
            recovered=self._recovered,
            requests=self._requests + self._asking.requests,
            unconfirmed=self._asking.unconfirmed if self._has_asked else None,
            is_proven=not doubts,
            why="; ".join(doubts) or self._proof,
        )

    @property
    def progress(self) -> str:
        requests = self.result.requests
        return f", {requests:,} more requests to prove that nothing is missing" if requests else ""

    def read(self, pages: Iterable[Page]) -> Iterator[Page]:
        """These pages, and then the records that are missing in them."""
        for page in pages:
            self._note(page)
            yield page
        try:
            yield from self._complete()
        except SchemaBreached:
            self._doubts.append("records that break their schema cannot be compared")
        except (Refused, CursorExpired) as refusal:
            self._doubts.append(f"the list could not be read again: {refusal}")

    def _note(self, page: Page) -> None:
        """Remember what did not come in one answer."""
        if page.parent is None:
            self._is_long = self._is_long or not page.is_last
            if not self._first:
                self._first = ids_of(page)
                self._asking.know(page)
        elif not page.is_last:
            self._long_parents[page.parent] = None
        elif page.parent not in self._long_parents:
            self._asking.whole_parents.add(page.parent)

    def _complete(self) -> Iterator[Page]:
        earlier = self._find_earlier()
        if earlier is not None:
            yield from self._missing(earlier)
        # What cannot be asked for by its id may be found by reading all of it again.
        is_in_doubt = bool(self._asking.unconfirmed)
        if self._two_passes or (self._two_passes is None and (earlier is None or is_in_doubt)):
            yield from self._read_again(None)
        elif earlier is not None:
            yield from self._read_again(earlier)
        elif self._is_long or self._long_parents:
            self._doubts.append("it was read once, without an earlier export to compare it with")

    def _missing(self, earlier: pl.LazyFrame) -> Iterator[Page]:
        """Ask for each record that was there and was not read."""
        missing = absent(earlier, self._recorded())
        for page in self._asking.find(missing) if len(missing) else ():
            self._recovered += len(ids_of(page))
            yield page
        self._has_asked = True
        self._gone |= set(missing[ID]) - self._asking.unconfirmed
        self._proof = "all that the previous export had was read, or asked for by id"

    def _read_again(self, earlier: pl.LazyFrame | None) -> Iterator[Page]:
        """Read again what did not come in one answer: everything, or what is newer than the earlier export."""
        if self._long_parents:
            yield from self._parents_again(earlier)
        old = None if earlier is None else hashes(earlier)
        # The first answer may hold all that is newer: then what ends it is old.
        if not self._is_long or (old is not None and self._first and hold(old, pl.Series(self._first[-1:])).all()):
            return
        for number, size in enumerate(SIZES[1:], 1):
            before = self._recorded()
            again = _Again(hashes(before), old)
            listing = sized(self._listing, size)
            for page in self._pages.over_cursor(listing) if earlier is None else self._pages.newest(listing):
                self._requests += 1
                for part in again.unknown(page):
                    self._asking.confirm(part)
                    yield part
                if again.is_over:
                    break
            self._passes += 1
            self._recovered += again.lost
            looked_for = before if earlier is None else absent(before, earlier).lazy()
            vanished = absent(looked_for, again.seen()).filter(~pl.col(ID).is_in(list(self._gone)))
            if not self._deleted(vanished):
                self._proof = again.proof(before) if earlier is None else self._proof
                return
            if not again.lost and (number > 1 or again.pages > SHORT):
                break
        self._doubts.append(
            f"records were deleted each of the {self._passes} times it was read; the last time it had no further record"
            if not again.lost
            else f"records fell out each of the {self._passes} times it was read"
        )

    def _deleted(self, vanished: pl.DataFrame) -> bool:
        """Whether any of these records, which were read before and not again, is gone; others fell out."""
        there = {one for page in self._asking.find(vanished) for one in ids_of(page)} if len(vanished) else set()
        gone = set(vanished[ID]) - there - self._asking.unconfirmed
        self._gone |= gone
        return bool(gone)

    def _parents_again(self, earlier: pl.LazyFrame | None) -> Iterator[Page]:
        """The same for lists of one parent's records, some at a time, which are compared in memory."""
        long = list(self._long_parents)
        if earlier is not None:
            new = set(absent(self._recorded(), earlier)[PARENT])
            long = [one for one in long if one in new]
        for start in range(0, len(long), PARENTS_AT_ONCE):
            some = long[start : start + PARENTS_AT_ONCE]
            known = recorded_of(self._recorded(), some)
            last = {parent: set(ids) for parent, ids in known.items()}
            for size in SIZES[1:]:
                seen = {parent: set[str]() for parent in some}
                for page in self._pages.side_by_side(sized(self._listing, size), some, gone=[]):
                    self._requests += 1
                    assert page.parent
                    there = set(ids_of(page))
                    yield from only(page, there - known[page.parent])
                    self._recovered += len(there - known[page.parent])
                    known[page.parent] |= there
                    seen[page.parent] |= there
                some, last = [parent for parent in some if last[parent] - seen[parent]], seen
                if not some:
                    break
            if some:
                parent = (self._listing.parent or "").replace("_", " ")
                self._doubts.append(f"{len(some):,} {parent} records had some deleted each time they were read")
        self._proof = f"{self._proof}, or was read again until nothing was missing"


class _Again:
    """One more pass over a list, compared with what is known of it."""

    def __init__(self, known: pl.Series, old: pl.Series | None) -> None:
        """Sorted hashes of ids. With `old`, the pass is over with the first page that has nothing else."""
        self.lost = 0
        """Records that the passes before did not have, although they are older than one that they had."""
        self.is_over = False
        self.pages = 0
        self._known = known
        self._old = old
        self._has_known = False
        self._seen: list[pl.Series] = [pl.Series(KEY, dtype=pl.UInt64)]
        self._seen_last: list[pl.Series] = []
        self._versions = 0

    def unknown(self, page: Page) -> Iterator[Page]:
        """The page with only those records that no pass before had."""
        self.pages += 1
        found = recorded_in(page.rows)
        ids = found[ID]
        known = hold(self._known, ids)
        self._see(found)
        if new := set(ids.filter(~known)):
            first_known = 0 if self._has_known else known.arg_true().min()
            self.lost += 0 if first_known is None else len(new & set(ids[first_known:]))
            yield from only(page, new)
        self._has_known = self._has_known or known.any()
        self.is_over = self._old is not None and hold(self._old, ids).all()

    def _see(self, found: pl.DataFrame) -> None:
        self._versions += found.select(_versions()).item()
        self._seen_last.append(found[KEY])
        if len(self._seen_last) == _JOINED:
            self._seen.append(pl.concat(self._seen_last))
            self._seen_last = []

    def seen(self) -> pl.LazyFrame:
        return pl.LazyFrame({KEY: pl.concat([*self._seen, *self._seen_last])}, schema={KEY: pl.UInt64})

    def proof(self, before: pl.LazyFrame) -> str:
        """What it proves if everything from before is still there."""
        if self._versions == before.select(_versions()).collect(engine="streaming").item():
            return "the last two passes had the same records in the same versions: a consistent snapshot"
        return "all that one pass read was still there in the next"


def recorded_in(rows: bytes) -> pl.DataFrame:
    """The records of a page as `absent` compares them; one without id, or with an odd version, breaks its schema."""
    found = [record for record in records(rows) if isinstance(record.id, str)]
    versions = [record.version if isinstance(record.version, int) else None for record in found]
    columns = {ID: [record.id for record in found], VERSION: versions, PARENT: [None] * len(found)}
    frame = pl.DataFrame(columns, schema={name: RECORDS[name] for name in columns}, strict=False)
    return frame.with_columns(pl.col(ID).hash().alias(KEY))


class Recorded:
    """Collects the records of a list whose rows nobody exports, to compare them."""

    def __init__(self) -> None:
        self._frames = [recorded_in(b"[]")]

    def add(self, page: bytes) -> None:
        self._frames.append(recorded_in(page))

    def records(self) -> pl.LazyFrame:
        return pl.concat(self._frames).lazy()


def _versions() -> pl.Expr:
    """One number for all records in their versions, whatever their order."""
    return (pl.struct(ID, VERSION).hash() % (1 << 32)).sum()
