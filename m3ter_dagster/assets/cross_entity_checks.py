"""Checks across the entities of one export: foreign keys and bill totals. They warn, and never fail an export."""

from collections.abc import Iterable, Iterator, Sequence
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
from m3ter_dagster.model.entities import entities
from m3ter_dagster.model.entity import Entity
from m3ter_dagster.names import DEFAULT, Names
from m3ter_dagster.resources import IO_MANAGER, ORGANIZATION
from m3ter_dagster.resources.io_manager import ExportIOManager
from m3ter_dagster.resources.organization import Organization

STEP = "checks_across_entities"
FOREIGN_KEYS, BILL_TOTAL, LEDGER = "foreign_keys", "bill_total", "ledger"
FOREIGN_KEYS_RULE = (
    "What the rows of {} refer to is in the same export. Rows written after the reading of the parents began are "
    "counted and not judged."
)
_BILL, _LINE_ITEM = "bill", "bill_line_item"
_BALANCE, _TRANSACTION = "balance", "balance_transaction"


def cross_entity_checks(*, has_ledger: bool = False, names: Names = DEFAULT) -> list[dg.AssetChecksDefinition]:
    """One step for all of these checks, after the last entity of a run, so that each file is read back only once."""

    def spec(check: str, entity: str, others: Iterable[str], description: str) -> dg.AssetCheckSpec:
        """It depends on the other entities, to wait for them in runs that export all."""
        deps = [names.key(one) for one in others]
        return dg.AssetCheckSpec(check, asset=names.key(entity), additional_deps=deps, description=description)

    @dg.multi_asset_check(
        name=names.own(STEP),
        description="Does what the rows refer to exist in the same export, and do bills add up?",
        specs=[
            *(
                spec(FOREIGN_KEYS, one.name, _parents(one), FOREIGN_KEYS_RULE.format(one.name))
                for one in entities().values()
                if one.references
            ),
            spec(BILL_TOTAL, _BILL, [_LINE_ITEM], RULE),
            *([spec(LEDGER, _TRANSACTION, [_BALANCE], ledgers.RULE)] if has_ledger else []),
        ],
        can_subset=True,
        op_tags={"dagster/priority": "-1"},  # where a process runs one step at a time, the manifest goes first
        required_resource_keys={names.own(ORGANIZATION), names.own(IO_MANAGER)},
    )
    def across_entities(context: dg.AssetCheckExecutionContext) -> Iterator[Result]:
        organization, io_manager = (getattr(context.resources, names.own(one)) for one in (ORGANIZATION, IO_MANAGER))
        find_in = cache(partial(_finder, organization, io_manager))
        export_of_entity = checked_exports(context.instance, context.run, organization.settings.org_id, names)
        for key in sorted(context.selected_asset_check_keys):
            entity = entities()[names.asset(key.asset_key)]
            export_id = export_of_entity(entity.name)
            outcome = _outcome(key.name, entity, find_in(export_id), organization)
            if outcome.is_error:
                context.log.warning(f"A check across entities could not be made. {outcome.text}")
            yield _result(key, outcome, export_id)

    return [across_entities]


def _parents(entity: Entity) -> Sequence[str]:
    return sorted({name for one in entity.references for name in one.to} - {entity.name})


def _outcome(check: str, entity: Entity, find: FindRows, organization: Organization) -> Outcome:
    """The outcome of a check, whatever goes wrong: an export that cannot be checked is no worse for it."""
    try:
        if check == BILL_TOTAL:
            return bill_total_outcome(find, bill=_BILL, line_item=_LINE_ITEM)
        if check == LEDGER:
            return ledger_outcome(find, organization.summaries)
        return foreign_keys_outcome(entity, find, organization.has)
    except Exception as error:
        return error_outcome(error)


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
        return not_checked(key.asset_key, key.name, outcome.text)
    return dg.AssetCheckResult(
        passed=outcome.passed,
        asset_key=key.asset_key,
        check_name=key.name,
        severity=dg.AssetCheckSeverity.WARN,
        description=outcome.text,
        metadata={"result": outcome.text, "export": export_id, **outcome.metadata},
    )
