"""Where the CPU of a line item goes: each stage of an export alone, over the same pages. `python -m bench.stages`

The stages call the project's own functions, in the order in which a row meets them. CPU is that of all threads of this
process; the API and the S3 are others.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from statistics import median

import click
import msgspec
import polars as pl

from bench.organization import Data
from bench.servers import Servers, running_servers
from bench.tables import stage_table
from m3ter_dagster.assets.outcomes import bill_total_outcome, foreign_keys_outcome
from m3ter_dagster.config import load_exports
from m3ter_dagster.delivery.destinations import Destinations
from m3ter_dagster.delivery.fingerprints import fingerprint
from m3ter_dagster.frames.cells import compact_json
from m3ter_dagster.frames.csv import Csv
from m3ter_dagster.frames.decoding import Decoder
from m3ter_dagster.frames.difference import write_keys
from m3ter_dagster.frames.references import ExportedRows
from m3ter_dagster.frames.schema import validate
from m3ter_dagster.m3ter.client import M3terClient
from m3ter_dagster.m3ter.limits import Limits
from m3ter_dagster.m3ter.token import Credentials
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.model.exports import Export
from m3ter_dagster.reading.reader import OrganizationReader
from m3ter_dagster.reading.reading import Reading
from m3ter_dagster.reading.spool import Spool

LINE_ITEM, BILL = "bill_line_item", "bill"
OF_IT = "of it "
"""Starts the names of stages that are part of the stage above."""


@dataclass
class Times:
    """CPU seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        started = time.process_time()
        yield
        self.seconds[name] = time.process_time() - started

    def subtract(self, name: str, *parts: str) -> None:
        """What a stage took apart from `parts` that it contains."""
        self.seconds[name] -= sum(self.seconds[part] for part in parts)


def profile(data: Data, servers: Servers, folder: Path) -> Mapping[str, float]:
    times, line_item = Times(), entities()[LINE_ITEM]
    stop = threading.Event()
    limits = Limits(requests_per_second=1e9)
    client = M3terClient(servers.api_url, data.organization_id, Credentials("key", "secret"), stop=stop, limits=limits)
    reading = _read(times, client, line_item, data, folder)
    _deliver(times, reading, servers, folder, Export("bench", data.organization_id, datetime.now(UTC)))
    reader = OrganizationReader(client, folder / "others", stop=stop)
    parents = {key.entity for key in line_item.foreign_keys}
    reader.start([entities()[name] for name in parents])
    readings = {name: reader.read(entities()[name], waiting=lambda _: None) for name in parents}
    reader.close()
    _check(times, readings | {LINE_ITEM: reading})
    return times.seconds


def _read(times: Times, client: M3terClient, line_item: Entity, data: Data, folder: Path) -> Reading:
    path = f"{line_item.listing.path}?pageSize={line_item.listing.page_size}"
    with times.stage("bodies fetched"):
        for first in range(0, data.line_items, line_item.listing.page_size):
            client.get(f"{path}&nextToken={first}", len)
    with times.stage("UTF-8 check and scan"):
        pages = [page.rows for page in client.pages(line_item.listing)]
    times.subtract("UTF-8 check and scan", "bodies fetched")
    spool = Spool(line_item, folder / "spool")
    with times.stage("decoded, checked, spooled"):
        for page in pages:
            spool.add(page)
    # As large as those that the spool decodes at once, a megabyte.
    blocks = [
        bytes(msgspec.json.decode(client.get(f"{path}0&nextToken={first}", bytes), type=_Rows).data)
        for first in range(0, data.line_items, 10 * line_item.listing.page_size)
    ]
    decoder = Decoder(line_item)
    with times.stage(f"{OF_IT}decoded to frames"):
        for page in blocks:
            decoder.decode(page)
    _decode_json(times, blocks, line_item)
    batch = pl.concat([decoder.decode(page)[0] for page in blocks[:20]])
    with times.stage(f"{OF_IT}rules"):
        for _ in range(0, data.line_items, len(batch)):
            validate(batch, line_item)
    with times.stage("newest copies, unique ids"):
        return spool.finish()


def _decode_json(times: Times, pages: list[bytes], line_item: Entity) -> None:
    """JSON cells are made while rows are decoded, so what they take is part of that, too."""
    columns = [column for column in line_item.columns if column.is_json]
    fields = [(column.name, msgspec.Raw, msgspec.Raw(b"null")) for column in columns]
    row = msgspec.defstruct("Row", fields, rename={column.name: column.api_field or "" for column in columns})
    decoder = msgspec.json.Decoder(list.__class_getitem__(row))
    cells = [
        (column.type, [raw for value in values if (raw := bytes(value)) != b"null"])
        for page in pages
        for column, values in zip(
            columns, zip(*map(msgspec.structs.astuple, decoder.decode(page)), strict=True), strict=True
        )
    ]
    with times.stage(f"{OF_IT}JSON cells"):
        for type_, raws in cells:
            compact_json(type_, raws)


def _deliver(times: Times, reading: Reading, servers: Servers, folder: Path, export: Export) -> None:
    file, keys = folder / "line_items.csv", folder / "keys.parquet"
    destinations = Destinations(
        {one.code: one for one in load_exports({"M3TER_EXPORTS": str(servers.exports)}).destinations}
    )
    with times.stage("CSV written"):
        Csv().write(reading.parts, reading.table, file)
    with times.stage(f"{OF_IT}rows counted"):
        Csv().count(file)
    with times.stage("checksums"):
        fingerprint(file)
    with times.stage("upload"):
        destinations.deliver(file, export, LINE_ITEM, to=["bench"], kind=Csv())
    times.subtract("upload", "checksums")
    with times.stage("keys file"):
        write_keys(reading.all_keys, reading.entity, keys)


def _check(times: Times, readings: Mapping[str, Reading]) -> None:
    def find(name: str) -> ExportedRows | None:
        found = readings.get(name)
        return ExportedRows(found.frame, found.started) if found else None

    with times.stage("foreign keys"):
        assert foreign_keys_outcome(entities()[LINE_ITEM], find, lambda *_: None).passed
    with times.stage("bill totals"):
        assert bill_total_outcome(find, bill=BILL, line_item=LINE_ITEM).passed


class _Rows(msgspec.Struct):
    data: msgspec.Raw


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Each is run so often, in turns; medians are shown.")
@click.option("--line-items", default=100_000, show_default=True)
@click.option("--kinds", default="documented,odd", show_default=True, help="The line items that there are.")
def stages(rounds: int, line_items: int, kinds: str) -> None:
    """Time each stage of an export alone, in microseconds a line item."""
    found: dict[str, list[Mapping[str, float]]] = {kind: [] for kind in kinds.split(",")}
    with tempfile.TemporaryDirectory() as folder, running_servers(Path(folder)) as servers:
        os.environ.update(servers.store_environment)
        for number, (kind, profiles) in product(range(rounds), found.items()):
            data = Data(kind, line_items // 15 + 1, line_items, line_items // 60 + 1)
            profiles.append(profile(data, servers, Path(folder) / f"{kind}-{number}"))
    medians = {
        kind: {name: median(one[name] for one in profiles) / line_items * 1e6 for name in profiles[0]}
        for kind, profiles in found.items()
    }
    click.echo(stage_table(medians, is_part=lambda name: name.startswith(OF_IT)))


if __name__ == "__main__":
    stages()
