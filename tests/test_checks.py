"""The checks across entities through Dagster: what they find, what they cannot look at, and that no export fails."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.loader import LoadingContextForTest
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionResolvedStatus

from m3ter_dagster.assets.cross_entity_checks import STEP
from m3ter_dagster.config import load_settings, parse_exports
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.history.log import EXPORT_JOB, MANIFEST, REFERENCES_JOB
from m3ter_dagster.history.record import delivery_in
from m3ter_dagster.model.entities import entities, operational_entities
from m3ter_dagster.runs import export_now, job_named
from m3ter_sandbox import SampleOrganization, SandboxApi, SandboxS3

Records = Iterable[tuple[str, dict[str, Any]]]
Use = Callable[[Records], SandboxApi]
Found = dict[str, dg.AssetCheckEvaluation]

OLD = {"dtCreated": "2024-01-01T00:00:00.000Z", "dtLastModified": "2024-01-01T00:00:00.000Z"}
LATER = (datetime.now(UTC) + timedelta(days=1)).isoformat()
NOBODY = "5a7d0c0e-dead-4000-a000-000000000000"
ORGANIZATION = SampleOrganization(2)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """In memory, where a run costs a third."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def use(s3: SandboxS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Use]:
    """From its call on the environment names an API with these records; all exports go to a bucket of the test's."""
    bucket = f"checks-{tmp_path.name.replace('_', '-')[-40:].strip('-')}"
    s3.client().create_bucket(Bucket=bucket)
    exports = tmp_path / "exports.yaml"
    destination = {"code": "warehouse", "bucketName": bucket, "endpointUrl": s3.endpoint_url}
    exports.write_text(json.dumps({"destinations": [destination]}), encoding="utf-8")
    apis: list[SandboxApi] = []

    def use(records: Records) -> SandboxApi:
        apis.append(SandboxApi(records, requests_per_second=None))
        apis[-1].start()
        settings = {**s3.environment, **apis[-1].environment, "M3TER_EXPORTS": str(exports)}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("M3TER_REQUESTS_PER_SECOND", "50")
        return apis[-1]

    yield use
    for api in apis:
        api.close()


def export(
    instance: dg.DagsterInstance, *names: str, again: dg.DagsterRun | None = None, job: str = EXPORT_JOB
) -> dg.DagsterRun:
    """Run an export job for these entities, or complete an earlier run of it."""
    config = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    selection = [dg.AssetKey(name) for name in names] or None
    options = dg.ReexecutionOptions.from_failure(again.run_id, instance) if again else None
    with dg.execute_job(
        job_named(job), instance, run_config=config, asset_selection=selection, reexecution_options=options
    ) as result:
        run = instance.get_run_by_id(result.run_id)
    assert run
    return run


def events(instance: dg.DagsterInstance, run: dg.DagsterRun, type: dg.DagsterEventType) -> list[dg.DagsterEvent]:
    records = instance.get_records_for_run(run.run_id, of_type=type).records
    return [event for record in records if (event := record.event_log_entry.dagster_event)]


def evaluations(
    instance: dg.DagsterInstance, run: dg.DagsterRun, step: str | None = None
) -> list[dg.AssetCheckEvaluation]:
    found = events(instance, run, dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    return [event.asset_check_evaluation_data for event in found if step in (None, event.step_key)]


def not_checked(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, str]:
    """The checks without a result, as `entity_check`, and what the log says of each."""
    outputs = [one.step_output_data for one in events(instance, run, dg.DagsterEventType.STEP_OUTPUT)]
    why = {one.output_name: one.metadata.get("not checked") for one in outputs}
    return {name: str(one.value) for name, one in why.items() if one}


def found_in(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Found:
    """What the checks across entities found, by `entity.check`."""
    return {f"{one.asset_key.path[-1]}.{one.check_name}": one for one in evaluations(instance, run, STEP)}


def table(evaluation: dg.AssetCheckEvaluation, name: str) -> list[dict[str, Any]]:
    shown = evaluation.metadata[name]
    assert isinstance(shown, dg.TableMetadataValue)
    return [dict(record.data) for record in shown.records]


def key_of(evaluation: dg.AssetCheckEvaluation, column: str) -> dict[str, Any]:
    """What a check says about the foreign key in a column."""
    return next(one for one in table(evaluation, "foreign keys") if one["column"] == column)


def contract(number: int, account: Any, **more: Any) -> tuple[str, dict[str, Any]]:
    return "contract", {"id": f"contract-{number}", "accountId": account, "name": "x", **OLD, **more}


def test_a_whole_export_passes_every_check_and_its_manifest_does_not_wait_for_them(
    use: Use, instance: dg.DagsterInstance
) -> None:
    use(ORGANIZATION.records())
    run = export(instance)
    found = found_in(instance, run)
    assert run.is_success
    assert [name for name, one in found.items() if not one.passed] == []
    assert {one.severity for one in found.values()} == {dg.AssetCheckSeverity.WARN}
    assert {key["result"] for key in foreign_keys(found)} - {"passed"} == {
        f"not checked: {name} is not in this export"
        for name in ("statement_definition", "counter", "currency", "credit_reason")
    } | {f"not checked: balance_{kind}_schedule is not in this export" for kind in ("charge", "transaction")}
    assert not_checked(instance, run).keys() == {f"{name}_row_count" for name in operational_entities()}
    started = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_START)
    assert [one.step_key for one in started][-2:] == [MANIFEST, STEP]


def test_every_foreign_key_leads_to_a_row_where_the_references_are_exported_too(
    use: Use, instance: dg.DagsterInstance
) -> None:
    use(ORGANIZATION.records())
    run = export(instance, job=REFERENCES_JOB)
    found = found_in(instance, run)
    keys = foreign_keys(found)
    assert run.is_success
    assert len(found) == len([one for one in entities().values() if one.references]) + 1
    assert len(keys) == sum(len(one.references) for one in entities().values())
    assert {key["result"] for key in keys} == {"passed"}
    used = {key["column"] for key in keys if key["references"]}
    assert used >= {"counterId", "creditTypeId", "reasonId", "scheduleId", "statementDefinitionId"}
    assert used >= {"entityId where entityType is BILL", "entityId where entityType is BALANCE"}


def test_references_alone_are_exported_from_a_terminal(use: Use, instance: dg.DagsterInstance) -> None:
    use(ORGANIZATION.records())
    names = ["counter_adjustment", "organization_config"]
    result = export_now(instance, names, ["warehouse"], verbose=False, changed=lambda *_: None)
    assert result.is_complete
    assert {name: one.rows for name, one in result.entities.items()} == {name: count(name) for name in names}


@pytest.mark.parametrize(
    ("data_types", "environ", "are_waited_for"),
    [("ALL", {}, False), ("ALL_AND_REFERENCES", {}, True), ("ALL", {"M3TER_EXECUTOR": "multiprocess"}, True)],
)
def test_the_manifest_depends_on_references_only_where_it_would_not_come_last_without(
    data_types: str, environ: dict[str, str], are_waited_for: bool
) -> None:
    """As long as one was never exported, Dagster asks whoever exports the others: Are you sure?"""
    schedule = {"code": "s", "operationalDataTypes": data_types, "destinations": ["warehouse"], "scheduleType": "DAY"}
    destination = {"code": "warehouse", "bucketName": "acme"}
    exports = {"destinations": [destination], "schedules": [{**schedule, "period": 1, "dtCreated": LATER}]}
    definitions = build_definitions(parse_exports(json.dumps(exports), environ={}), load_settings(environ))
    parents = definitions.resolve_asset_graph().get(dg.AssetKey(MANIFEST)).parent_keys
    assert {key.path[-1] for key in parents} == (entities() if are_waited_for else operational_entities()).keys()


def foreign_keys(found: Found) -> list[dict[str, Any]]:
    return [key for name, one in found.items() if name != "bill.bill_total" for key in table(one, "foreign keys")]


def test_a_run_of_three_entities_makes_only_their_checks(use: Use, instance: dg.DagsterInstance) -> None:
    use(ORGANIZATION.records())
    run = export(instance, "meter", "product", "plan")
    assert run.is_success
    found = found_in(instance, run)
    assert {name: one.description for name, one in found.items()} == {
        "meter.foreign_keys": "1 key and 10 references looked at.",
        "plan.foreign_keys": f"1 key and {count('plan')} references looked at.",
    }
    assert key_of(found["plan.foreign_keys"], "planTemplateId") == {
        "column": "planTemplateId",
        "refers to": "plan_template",
        "references": None,
        "rows that refer to nothing": None,
        "missing ids": None,
        "recent rows": None,
        "result": "not checked: plan_template is not in this export",
    }


def test_more_than_half_of_the_rows_gone_is_a_warning_and_half_of_them_is_none(
    use: Use, instance: dg.DagsterInstance
) -> None:
    accounts = [("account", {"id": f"a-{number}", "name": "A", **OLD}) for number in range(10)]
    expected = {
        10: None,
        5: (True, "5 rows, 10 in the previous export."),
        2: (False, "2 rows, 5 in the previous export."),
        1: (True, "1 rows, 2 in the previous export."),
        0: (False, "0 rows, 1 in the previous export."),
    }
    for rows, judged in expected.items():
        use(accounts[:rows])
        run = export(instance, "account", MANIFEST)
        found = [one for one in evaluations(instance, run) if one.check_name == "row_count"]
        assert run.is_success
        assert [(one.passed, one.description) for one in found] == ([judged] if judged else [])
        assert {one.severity for one in found if not one.passed} <= {dg.AssetCheckSeverity.WARN}
        assert ("account_row_count" in not_checked(instance, run)) is (judged is None)


def test_where_nothing_is_checked_no_check_has_a_result(use: Use, instance: dg.DagsterInstance) -> None:
    """Dagster shows these as skipped, and the log says why."""
    use(ORGANIZATION.records())
    run = export(instance, "account", "contract")
    assert {one.check_name for one in evaluations(instance, run)} == {"schema", "complete", "foreign_keys"}
    assert not_checked(instance, run) == dict.fromkeys(
        ("account_row_count", "contract_row_count"), "there is no previous export by the same schedule"
    )
    run = export(instance, "contract", "pricing")
    assert {f"{one.asset_key.path[-1]}.{one.check_name}" for one in evaluations(instance, run)} == {
        f"{entity}.{check}" for entity in ("contract", "pricing") for check in ("schema", "complete")
    }
    assert not_checked(instance, run)["pricing_foreign_keys"].endswith(" is not in this export")
    key = dg.AssetCheckKey(dg.AssetKey("contract"), "foreign_keys")
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
    status = asyncio.run(record.resolve_status(LoadingContextForTest(instance)))
    assert status == AssetCheckExecutionResolvedStatus.SKIPPED


def test_a_reference_to_nothing_is_named_and_the_run_succeeds(use: Use, instance: dg.DagsterInstance) -> None:
    accounts = [("account", {"id": one, "name": "A", **OLD}) for one in ("a", "b")]
    use([*accounts, contract(1, "a"), contract(2, NOBODY), contract(3, NOBODY)])
    run = export(instance, "account", "contract")
    found = found_in(instance, run)["contract.foreign_keys"]
    assert run.is_success
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert found.description == "accountId: 2 rows refer to 1 of account not there; m3ter has none of them either."
    assert key_of(found, "accountId")["references"] == 3
    assert table(found, "first rows") == [
        {"row id": "contract-2", "column": "accountId", "refers to": NOBODY},
        {"row id": "contract-3", "column": "accountId", "refers to": NOBODY},
    ]


def test_a_reference_to_what_m3ter_has_and_its_list_has_not_is_told_apart(
    use: Use, instance: dg.DagsterInstance
) -> None:
    accounts = [("account", {"id": one, "name": "A", **OLD}) for one in ("b", "c")]
    api = use([*accounts, contract(1, "a"), contract(2, NOBODY), contract(3, "b")])

    def before_answer(path: str, query: str) -> None:
        if path == "/accounts" and "ids=a" in query:
            api.records.insert("account", {"id": "a", "name": "A", **OLD})

    api.before_answer = before_answer
    found = found_in(instance, export(instance, "account", "contract"))["contract.foreign_keys"]
    assert found.description == "accountId: 2 rows refer to 2 of account not there; m3ter has 1 of them (a)."


@pytest.mark.parametrize("field", ["dtCreated", "dtLastModified"])
def test_rows_written_while_the_export_ran_are_not_judged(use: Use, instance: dg.DagsterInstance, field: str) -> None:
    use([("account", {"id": "a", "name": "A", **OLD}), contract(1, NOBODY, **{field: LATER})])
    found = found_in(instance, export(instance, "account", "contract"))["contract.foreign_keys"]
    assert found.passed
    assert found.description == (
        "1 key and 1 reference looked at; 1 row was written while the export ran and was not judged."
    )
    assert key_of(found, "accountId")["recent rows"] == 1


def test_an_account_refers_to_accounts(use: Use, instance: dg.DagsterInstance) -> None:
    parents = {"a": None, "b": "a", "c": NOBODY}
    use([("account", {"id": id, "name": id, "parentAccountId": parent, **OLD}) for id, parent in parents.items()])
    found = found_in(instance, export(instance, "account"))["account.foreign_keys"]
    assert table(found, "first rows") == [{"row id": "c", "column": "parentAccountId", "refers to": NOBODY}]


def test_a_total_that_is_off_by_one_is_found(use: Use, instance: dg.DagsterInstance) -> None:
    wrong = next(record["id"] for entity, record in ORGANIZATION.records() if entity == "bill")
    use((entity, off_by_one(record) if record["id"] == wrong else record) for entity, record in ORGANIZATION.records())
    run = export(instance, "bill", "bill_line_item")
    found = found_in(instance, run)["bill.bill_total"]
    assert run.is_success
    assert not found.passed
    assert found.description == f"1 of {count('bill')} bills do not have the sum of their line items as total."
    (row,) = table(found, "first bills")
    assert (row["bill id"], row["difference"]) == (wrong, 1.0)


def test_bills_without_their_line_items_are_not_checked(use: Use, instance: dg.DagsterInstance) -> None:
    use(ORGANIZATION.records())
    run = export(instance, "bill")
    assert "bill.bill_total" not in found_in(instance, run)
    assert not_checked(instance, run)["bill_bill_total"] == "bill_line_item is not in this export"


def test_a_balance_whose_transactions_do_not_add_up_is_named(use: Use, instance: dg.DagsterInstance) -> None:
    api = use(ORGANIZATION.records())
    exports = Path(os.environ["M3TER_EXPORTS"])
    exports.write_text(json.dumps(json.loads(exports.read_text()) | {"ledgerCheck": True}), encoding="utf-8")
    transactions = [record for name, record in ORGANIZATION.records() if name == "balance_transaction"]
    (balance,) = {record["balanceId"] for record in transactions}
    lost, left = transactions[0], transactions[1:]

    def asked() -> int:
        return sum(one.path.endswith("/transactions/summary") for one in api.requests)

    names = ("balance", "balance_transaction")
    found = found_in(instance, export(instance, *names))["balance_transaction.ledger"]
    assert (found.passed, found.description, asked()) == (True, "1 balance looked at.", 1)

    def before_answer(path: str, query: str) -> None:  # noqa: ARG001
        if path.endswith("/summary"):
            api.records.delete("balance_transaction", lost["id"])

    api.before_answer = before_answer
    run = export(instance, *names)
    found = found_in(instance, run)["balance_transaction.ledger"]
    assert run.is_success
    assert found.description == "1 of 1 balance have transactions with another sum than m3ter says."
    amounts = [Decimal(str(record["amount"])) for record in (lost, *left)]
    assert table(found, "first balances") == [
        {
            "balance id": balance,
            "sum of transactions": str(sum(amounts)),
            "totalCreditAmount": "0",
            "totalDebitAmount": str(-sum(amounts[1:])),
            "difference": str(amounts[0]),
        }
    ]
    assert not_checked(instance, export(instance, "balance_transaction"))["balance_transaction_ledger"] == (
        "balance is not in this export"
    )


def test_a_re_execution_reads_back_what_the_first_run_delivered(use: Use, instance: dg.DagsterInstance) -> None:
    account = ("account", {"id": "a", "name": "A", **OLD})
    use([account, contract(1, "a"), contract(2, 5)])
    first = export(instance, "account", "contract")
    assert not first.is_success
    assert found_in(instance, first) == {}
    api = use([contract(1, "a"), contract(2, NOBODY)])
    second = export(instance, again=first)
    found = found_in(instance, second)
    assert second.is_success
    assert "accounts" not in {one.path.rsplit("/", 1)[-1] for one in api.requests}
    assert table(found["contract.foreign_keys"], "first rows") == [
        {"row id": "contract-2", "column": "accountId", "refers to": NOBODY}
    ]
    assert found["account.foreign_keys"].description == "1 key and 0 references looked at."


def test_what_another_export_delivered_is_not_looked_at(use: Use, instance: dg.DagsterInstance) -> None:
    use(ORGANIZATION.records())
    export(instance, "account")
    run = export(instance, "contract")
    assert found_in(instance, run) == {}
    assert not_checked(instance, run)["contract_foreign_keys"] == "account is not in this export"


def test_a_check_executed_alone_is_about_the_last_export_of_its_entity(use: Use, instance: dg.DagsterInstance) -> None:
    use([("account", {"id": "a", "name": "A", **OLD}), contract(1, "a"), contract(2, NOBODY)])
    both = export(instance, "account", "contract")
    export(instance, "account")
    found = found_in(instance, check(instance, "contract", "foreign_keys"))["contract.foreign_keys"]
    assert table(found, "first rows") == [{"row id": "contract-2", "column": "accountId", "refers to": NOBODY}]
    assert found.metadata["export"].value == both.run_id


def check(instance: dg.DagsterInstance, entity: str, name: str) -> dg.DagsterRun:
    """As the button "Execute" of a check does."""
    key = dg.AssetCheckKey(dg.AssetKey(entity), name)
    job = job_named(EXPORT_JOB).get_definition().get_subset(asset_selection=set(), asset_check_selection={key})
    run = instance.get_run_by_id(job.execute_in_process(instance=instance).run_id)
    assert run
    return run


def test_a_store_that_gives_nothing_back_is_a_warning_and_no_failure(
    use: Use, instance: dg.DagsterInstance, s3: SandboxS3
) -> None:
    use([("account", {"id": "a", "name": "A", **OLD}), contract(2, 5)])
    first = export(instance, "account", "contract")
    for key in s3.objects(bucket := bucket_of(instance)):
        s3.client().delete_object(Bucket=bucket, Key=key)
    use([contract(2, "a")])
    second = export(instance, again=first)
    found = found_in(instance, second)["contract.foreign_keys"]
    assert second.is_success
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert str(found.description).startswith("accountId could not be checked: destination 'warehouse', s3://")


def bucket_of(instance: dg.DagsterInstance) -> str:
    """Where the last export of accounts went."""
    event = instance.get_latest_materialization_event(dg.AssetKey("account"))
    assert event
    assert event.asset_materialization
    delivery = delivery_in(event.asset_materialization)
    assert delivery
    return delivery.objects[0].uri.split("/")[2]


def off_by_one(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "billTotal": record["billTotal"] + 1}


def count(entity: str) -> int:
    assert entity in entities()
    return sum(name == entity for name, _ in ORGANIZATION.records())
