"""m3ter-dagster sandbox and demo, the only commands that need the `sandbox` extra (flask, moto)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from m3ter_dagster.cli.export import run_export, show_result
from m3ter_dagster.cli.organization import Chosen
from m3ter_dagster.cli.terminal import Unusable, as_json, configured, open_console, with_objects
from m3ter_dagster.config import S3Destination, load_exports
from m3ter_dagster.model.entities import entities, operational_entities

accounts_option = click.option(
    "--accounts",
    type=click.IntRange(0, 100_000),
    default=60,
    show_default=True,
    help="Size of the sample organization.",
)


@click.command(context_settings={"ignore_unknown_options": True})
@accounts_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def sandbox(accounts: int, command: Sequence[str]) -> None:
    """Run a sample m3ter organization and a sample S3, until stopped or while COMMAND runs."""
    with _needs_the_extra():
        from m3ter_sandbox.serving import serve

    configured(entities)
    if command and shutil.which(command[0]) is None:
        raise click.UsageError(f"there is no program {command[0]!r}; write one of your PATH, or its path.")
    raise SystemExit(serve(accounts, command))


@click.command()
@accounts_option
@click.option("--output", default="demo-output", show_default=True, help="Folder for copies of the delivered files.")
@with_objects
@as_json
def demo(accounts: int, output: str, with_objects: bool, as_json: bool) -> None:
    """Export the sample organization to the sample S3, all through Dagster."""
    with _needs_the_extra():
        from m3ter_sandbox import Sandbox

    names = list(configured(operational_entities))
    # Its own, and new each time: Dagster's records of a person's exports are not to be mixed with those of samples.
    home = Path(output).absolute() / "dagster"
    shutil.rmtree(home, ignore_errors=True)
    with Sandbox(accounts=accounts) as sample:
        os.environ.update(sample.environment, DAGSTER_HOME=str(home))
        exports = load_exports()
        about = f"Sample organization of {accounts} accounts at {sample.api.base_url}, S3 at {sample.s3.endpoint_url}"
        click.echo(about, err=as_json)
        console = open_console(stderr=as_json)
        result = run_export(console, Chosen(), names, exports.default_destinations)
        show_result(console, result, with_objects=with_objects, as_json=as_json)
        if result.is_complete:
            destinations = [exports.destination(one) for one in exports.default_destinations]
            buckets = [one.bucket_name for one in destinations if isinstance(one, S3Destination)]
            keys = [key for bucket in buckets for key in _write(sample.s3.objects(bucket), Path(output) / bucket)]
            of_hashes = sum(key.endswith("_keys.parquet") for key in keys)
            click.echo(
                f"{len(keys) - of_hashes} delivered files were copied to {output}/, with {of_hashes} files of keys, "
                "by which the next export finds what has changed.",
                err=as_json,
            )
    raise SystemExit(0 if result.is_complete else 1)


@contextmanager
def _needs_the_extra() -> Generator[None]:
    """Put around imports of the sandbox: says what to install if a package of the extra is missing."""
    try:
        yield
    except ModuleNotFoundError as missing:
        package = (missing.name or "").partition(".")[0]
        if package.startswith("m3ter"):  # a fault of ours, not of the installation
            raise
        raise Unusable(
            f"The sandbox needs the package {package}, which is not installed; "
            "install the extra with: pip install 'm3ter-dagster[sandbox]'"
        ) from None


def _write(objects: Mapping[str, bytes], folder: Path) -> Iterable[str]:
    """Replaces what the folder had."""
    shutil.rmtree(folder, ignore_errors=True)
    for key, content in objects.items():
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return objects.keys()
