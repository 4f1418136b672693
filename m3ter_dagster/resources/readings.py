"""What can be delivered as rows, and how it was read, as the record of its delivery has it."""

from __future__ import annotations

from m3ter_dagster.history import record
from m3ter_dagster.reading.reading import Reading
from m3ter_dagster.usage.reader import UsageReading

Read = Reading | UsageReading


def recorded(read: Read) -> record.Reading:
    if isinstance(read, Reading):
        return record.Reading(
            started=read.started,
            finished=read.finished,
            duplicates_dropped=read.duplicates,
            unknown_fields=dict(read.unknown_fields),
            empty_fields=tuple(read.empty_columns),
            requests=read.requests,
            how=read.how,
            reused_in_a_row=read.reuse.in_a_row if read.reuse else 0,
            completeness=_completeness(read),
        )
    return record.Reading(
        started=read.started,
        finished=read.finished,
        unknown_fields=dict.fromkeys(read.usage.unknown_columns, read.usage.rows),
        empty_fields=tuple(read.usage.empty_columns),
        job=read.job_id,
        window=(read.window.start, read.window.end),
        sums=read.sums,
    )


def _completeness(read: Reading) -> record.Completeness | None:
    found, deleted = read.completeness, read.deleted
    if found is None:
        return None
    return record.Completeness(
        complete=record.PROVEN if found.is_proven else record.NOT_PROVEN,
        why=found.why,
        passes=found.passes,
        read=read.rows,
        recovered=found.recovered,
        written_meanwhile=found.written_meanwhile,
        deleted=deleted.new if deleted else 0,
        deleted_rows=deleted.count if deleted else 0,
    )
