"""Checks across the entities of one export: foreign keys and bill totals. They warn, and never fail an export."""

from collections.abc import Iterator
from functools import cache, partial

import dagster as dg

from m3ter_dagster.assets.entity_checks import Result, not_checked
from m3ter_dagster.assets.outcomes import (
    FindRows,
    Outcome,
    bill_total_outcome,
    error_outcome,
    foreign_keys_outcome,
    ledger_outcome,
)
from m3ter_dagster.frames import ledgers
from m3ter_dagster.frames.bill_totals import RULE
from m3ter_dagster.frames.references import ExportedRows
from m3ter_dagster.history.log import checked_exports
from m3ter_dagster.model.entities import Entity, entities
from m3ter_dagster.resources import IO_MANAGER
from m3ter_dagster.resources.io_manager import ExportIOManager
from m3ter_dagster.resources.organization import Organization

STEP = "checks_across_entities"
FOREIGN_KEYS, BILL_TOTAL, LEDGER = "foreign_keys", "bill_total", "ledger"
_BILL, _LINE_ITEM = "bill", "bill_line_item"
_BALANCE, _TRANSACTION = "balance", "balance_transaction"


def cross_entity_checks(*, has_ledger: bool = False) -> list[dg.AssetChecksDefinition]:
    """One step for all of these checks, after the last entity of a run, so that each file is read back only once."""
    ledger = dg.AssetCheckSpec(LEDGER, asset=_TRANSACTION, additional_deps=[_BALANCE], description=ledgers.RULE)
    total = dg.AssetCheckSpec(BILL_TOTAL, asset=_BILL, additional_deps=[_LINE_ITEM], description=RULE)

    @dg.multi_asset_check(
        name=STEP,
        description="Does what the rows refer to exist in the same export, and do bills add up?",
        specs=[
            *(_spec(entity) for entity in entities().values() if entity.references),
            total,
            *([ledger] if has_ledger else []),
        ],
        can_subset=True,
        op_tags={"dagster/priority": "-1"},  # where a process runs one step at a time, the manifest goes first
        required_resource_keys={"organization", IO_MANAGER},
    )
    def across_entities(context: dg.AssetCheckExecutionContext) -> Iterator[Result]:
        find_in = cache(partial(_finder, context.resources.organization, context.resources.csv_io_manager))
        org_id = context.resources.organization.settings.org_id
        export_of_asset = checked_exports(context.instance, context.run, org_id)
        for key in sorted(context.selected_asset_check_keys):
            export_id = export_of_asset(key.asset_key.path[-1])
            yield _result(key, _outcome(key, find_in(export_id), context), export_id)

    return [across_entities]


def _spec(entity: Entity) -> dg.AssetCheckSpec:
    """The spec of the check of foreign keys. It depends on the parents, to wait for them in runs that export both."""
    parents = {name for one in entity.references for name in one.to} - {entity.name}
    return dg.AssetCheckSpec(
        FOREIGN_KEYS,
        asset=entity.name,
        additional_deps=sorted(parents),
        description=f"What the rows of {entity.name} refer to is in the same export. Rows written after the reading of "
        "the parents began are counted and not judged.",
    )


def _judge(key: dg.AssetCheckKey, find: FindRows, organization: Organization) -> Outcome:
    if key.name == BILL_TOTAL:
        return bill_total_outcome(find, bill=_BILL, line_item=_LINE_ITEM)
    if key.name == LEDGER:
        return ledger_outcome(find, organization.summaries)
    return foreign_keys_outcome(entities()[key.asset_key.path[-1]], find, organization.has)


def _outcome(key: dg.AssetCheckKey, find: FindRows, context: dg.AssetCheckExecutionContext) -> Outcome:
    """The outcome of a check, whatever goes wrong: an export that cannot be checked is no worse for it."""
    try:
        return _judge(key, find, context.resources.organization)
    except Exception as error:
        outcome = error_outcome(error)
        context.log.warning(f"A check across entities could not be made. {outcome.text}")
        return outcome


def _finder(organization: Organization, io_manager: ExportIOManager, export_id: str) -> FindRows:
    """Finds an entity's rows as this process has read them, or else as the runs of the export delivered them."""
    delivered = io_manager.delivered_frames(export_id)

    def find(name: str) -> ExportedRows | None:
        entity = entities()[name]
        reading = organization.already_read(entity)
        return ExportedRows(reading.all_rows, reading.started) if reading else delivered.find(entity)

    return find


def _result(key: dg.AssetCheckKey, outcome: Outcome, export_id: str) -> Result:
    if outcome.passed is None:
        return not_checked(key.asset_key.path[-1], key.name, outcome.text)
    return dg.AssetCheckResult(
        passed=outcome.passed,
        asset_key=key.asset_key,
        check_name=key.name,
        severity=dg.AssetCheckSeverity.WARN,
        description=outcome.text,
        metadata={"result": outcome.text, "export": export_id, **outcome.metadata},
    )
