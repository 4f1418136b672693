"""What was measured, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from bench.organization import Data
from bench.rounds import Run, Used

OURS, IMPORTS = "ours", "imports"
RATIO = "ours / it"


def comparison(used: Mapping[Run, Used], *, whole: Sequence[Run], fixed: Sequence[Run], fewer: int) -> str:
    """`fewer` is the number of line items of the smaller runs."""
    heads = ["", "line items", "CPU s", RATIO, "us a line item", RATIO, "peak MB"]
    rows = _table(heads, (_row(run, used, fewer) for run in whole))
    if not fixed:
        return rows
    imports = next(run for run in fixed if run.subject.name == IMPORTS)
    heads = ["", "CPU s", "times the imports", "peak MB"]
    return f"{rows}\n" + _table(
        heads,
        (
            [
                run.subject.caption,
                f"{used[run].cpu_seconds:.1f}",
                f"{used[run].cpu_seconds / used[imports].cpu_seconds:.1f}",
                f"{used[run].peak_megabytes:.0f}",
            ]
            for run in fixed
        ),
    )


def growth_curve(used: Mapping[Data, Used]) -> str:
    """From the smallest on; what a row costs is that of the rows that the organization before did not have."""
    smaller, rows = (0, 0.0), []
    for data, one in used.items():
        count = data.bills + data.line_items + data.accounts
        marginal = (one.cpu_seconds - smaller[1]) / (count - smaller[0]) * 1e6 if rows else None
        figures = (f"{one.cpu_seconds:.1f}", f"{marginal:.0f}" if marginal else "", f"{one.peak_megabytes:.0f}")
        rows.append([f"{data.line_items:,}", *figures])
        smaller = (count, one.cpu_seconds)
    return _table(["line items", "CPU s", "us a further row", "peak MB"], rows)


def stage_table(stages: Mapping[str, Mapping[str, float]], *, is_part: Callable[[str], bool]) -> str:
    """Microseconds a line item by kind of line items and stage; parts of a stage do not count in the sum."""
    names = list(next(iter(stages.values())))
    rows = [[name, *(f"{found[name]:.1f}" for found in stages.values())] for name in names]
    sums = [sum(spent for name, spent in found.items() if not is_part(name)) for found in stages.values()]
    return _table(["us a line item", *stages], [*rows, ["all stages", *(f"{one:.1f}" for one in sums)]])


def _row(run: Run, used: Mapping[Run, Used], fewer: int) -> list[str]:
    ours = next((other for other in used if other.subject.name == OURS and other.data == run.data), None)
    cpu, marginal = used[run].cpu_seconds, _marginal(run, used, fewer)
    ours_marginal = _marginal(ours, used, fewer) if ours else None
    return [
        run.subject.caption,
        run.data.kind,
        f"{cpu:.1f}",
        f"{used[ours].cpu_seconds / cpu:.2f}" if ours else "",
        f"{marginal:.1f}" if marginal else "",
        f"{ours_marginal / marginal:.2f}" if marginal and ours_marginal else "",
        f"{used[run].peak_megabytes:.0f}",
    ]


def _marginal(run: Run, used: Mapping[Run, Used], fewer: int) -> float | None:
    """Microseconds that one more line item costs."""
    small = used.get(replace(run, data=replace(run.data, line_items=fewer)))
    more = run.data.line_items - fewer
    return (used[run].cpu_seconds - small.cpu_seconds) / more * 1e6 if small and more else None


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
