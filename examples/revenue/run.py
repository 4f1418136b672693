"""Exports the sandbox into a folder, builds the models, and compares them with what polars makes of the same files."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import dagster as dg
import duckdb
import polars as pl

from m3ter_sandbox import SampleOrganization, SandboxApi

HERE = Path(__file__).parent
AS_OF = "2024-06-15"
"""A day on which some commitments of the sample organization are open, and some have ended."""
AMOUNT = pl.Decimal(38, 10)


def main() -> None:
    with TemporaryDirectory() as folder, SandboxApi(SampleOrganization(60, 1).records()) as api:
        exports, database = Path(folder) / "exports", Path(folder) / "revenue.duckdb"
        exports.mkdir()
        os.environ |= api.environment | {
            "M3TER_EXPORTS": str(HERE / "exports.yaml"),
            "REVENUE_EXPORTS": str(exports),
            "REVENUE_DUCKDB": str(database),
        }
        export_and_build(Path(folder) / "dagster")
        differing = compare(exports, database)
    sys.exit(f"The models differ from the export: {differing}" if differing else 0)


def export_and_build(home: Path) -> None:
    """One Dagster run: the exports, their manifest, the models behind it."""
    from definitions import definitions  # the environment is read where it is imported

    home.mkdir()
    config = {
        "ops": {"models": {"config": {"as_of": AS_OF}}},
        "loggers": {"console": {"config": {"log_level": "ERROR"}}},
    }
    ours = definitions()
    behind = {key.to_user_string() for key in ours.resolve_asset_graph().get(dg.AssetKey("revenue")).parent_keys}
    if behind != {"account", "bill", "bill_line_item", "export_manifest", "product"}:
        sys.exit(f"The lineage is broken: revenue stands behind {', '.join(sorted(behind))}.")
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        ours.resolve_job_def("revenue").execute_in_process(run_config=config, instance=instance)


def compare(exports: Path, database: Path) -> list[str]:
    """The names of the models that are not what the files add up to, to the cent."""
    expected = {
        "revenue": revenue(exports),
        "bill_reconciliation": reconciliation(exports),
        "open_commitments": commitments(exports),
    }
    with duckdb.connect(str(database), read_only=True) as connection:
        built = {name: connection.sql(f"FROM {name}").pl() for name in expected}
    for name, frame in built.items():
        print(f"{name}: {len(frame)} rows")
    print(built["revenue"].group_by("currency").agg(pl.col("approved", "pending").sum()).sort("currency"))
    print(f"{built['bill_reconciliation']['reconciles'].sum()} of {len(built['bill_reconciliation'])} bills reconcile.")
    return [name for name, frame in expected.items() if rows_of(frame, frame) != rows_of(built[name], frame)]


def rows_of(frame: pl.DataFrame, like: pl.DataFrame) -> list[tuple[object, ...]]:
    """Rows with the columns of another frame, amounts in cents."""
    cents = (pl.col(pl.Decimal, pl.Float64).cast(AMOUNT).round(2) * 100).cast(pl.Int64)
    return sorted(frame.select(like.columns).with_columns(cents).rows(), key=str)


def read(exports: Path, entity: str) -> pl.DataFrame:
    """The rows that are there, all as text: amounts are added up as decimals."""
    (file,) = exports.rglob(f"*_{entity}.csv")
    return pl.read_csv(file, infer_schema=False).filter(pl.col("deleted") == "false")


def lines(exports: Path) -> pl.DataFrame:
    amount = pl.coalesce("convertedSubtotal", "subtotal").cast(pl.Float64).cast(AMOUNT)
    bills = read(exports, "bill").select(
        "accountId", "billDate", "status", "currency", "billTotal", pl.col("id").alias("billId")
    )
    ours = read(exports, "bill_line_item").select("billId", "productId", amount.alias("amount"))
    return bills.join(ours, on="billId", how="left")


def revenue(exports: Path) -> pl.DataFrame:
    is_approved = pl.col("status") == "APPROVED"
    keys = {
        "month": pl.col("billDate").str.head(7),
        "account_id": pl.col("accountId"),
        "product_id": pl.col("productId"),
    }
    return (
        lines(exports)
        .drop_nulls("amount")
        .group_by("currency", **keys)
        .agg(
            approved=pl.when(is_approved.any()).then(pl.col("amount").filter(is_approved).sum()),
            pending=pl.when((~is_approved).any()).then(pl.col("amount").filter(~is_approved).sum()),
            line_items=pl.len(),
        )
        .join(names(exports, "account", "customer"), on="account_id", how="left")
        .join(names(exports, "product", "product"), on="product_id", how="left", nulls_equal=False)
        .with_columns(pl.col("product").fill_null("no product"))
    )


def names(exports: Path, entity: str, column: str) -> pl.DataFrame:
    return read(exports, entity).select(pl.col("id").alias(f"{entity}_id"), pl.col("name").alias(column))


def reconciliation(exports: Path) -> pl.DataFrame:
    return (
        lines(exports)
        .group_by(bill_id="billId")
        .agg(
            bill_total=pl.col("billTotal").first().cast(pl.Float64).cast(AMOUNT),
            line_total=pl.col("amount").sum(),
            line_items=pl.col("amount").count(),
        )
    )


def commitments(exports: Path) -> pl.DataFrame:
    amount, spent = (pl.col(name).cast(pl.Float64).cast(AMOUNT) for name in ("amount", "amountSpent"))
    left = amount - spent.fill_null(0)
    rows = read(exports, "commitment").filter(left > 0, pl.col("endDate") >= AS_OF)
    return rows.select(commitment_id="id", remaining=left)


if __name__ == "__main__":
    main()
