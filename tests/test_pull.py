"""What a customer has in m3ter's Data Export service becomes an exports.yaml that this project takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Blueprint
from hypothesis import example, given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import Forbidden

from m3ter_dagster.cli import main
from m3ter_dagster.cli.exports_yaml import exports_yaml
from m3ter_dagster.cli.hosted_exports import LONGEST_CODE, destination_items, schedule_items
from m3ter_dagster.config import Exports, ExportSchedule, GcsDestination, S3Destination, UsageSchedule, parse_exports
from m3ter_dagster.model.entities import operational_entities
from m3ter_sandbox import SandboxApi
from m3ter_sandbox.data_exports import data_export_routes, sample_destinations, sample_schedules
from m3ter_sandbox.values import Seed

SEED = Seed(1)
DESTINATIONS, SCHEDULES = sample_destinations(SEED), sample_schedules(SEED)
ROLE = "arn:aws:iam::123456789012:role/m3ter-export"


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="module")
def pulled(home: None) -> Iterator[Result]:  # noqa: ARG001
    with SandboxApi([], further_routes=[data_export_routes(DESTINATIONS, SCHEDULES)]) as api:
        yield pull(api)


def pull(api: SandboxApi) -> Result:
    return CliRunner().invoke(main, ["pull"], env=api.environment)


def text_of(destinations: Sequence[Any], schedules: Sequence[Any]) -> str:
    items = destination_items(destinations)
    return exports_yaml("org-1", items.values(), schedule_items(schedules, items))


def exports_of(text: str) -> Exports:
    return parse_exports(text, environ={})


def destination(number: int = 0, **values: Any) -> dict[str, Any]:
    usual = {"id": f"destination-{number}", "code": f"warehouse-{number}", "bucketName": "acme-exports"}
    return {**usual, "destinationType": "S3", "iamRoleArn": ROLE, "dtCreated": "2024-06-01T10:00:00Z", **values}


def schedule(number: int = 0, **values: Any) -> dict[str, Any]:
    usual = {"id": f"schedule-{number}", "code": f"nightly-{number}", "sourceType": "OPERATIONAL"}
    what = {"destinationIds": ["destination-0"], "operationalDataTypes": ["BILLS"]}
    return {**usual, **what, "scheduleType": "DAY", "period": 1, "dtCreated": "2024-06-01T10:00:00Z", **values}


def test_what_it_prints_is_an_exports_file(pulled: Result) -> None:
    assert pulled.exit_code == 0
    exports = exports_of(pulled.stdout)
    assert [one.code for one in exports.destinations] == ["warehouse", "archive", "lake"]
    assert [one.code for one in exports.schedules] == [
        *("finance", "bills", "type_export", "lake only", "office hours", "quarterly", "usage")
    ]
    assert pulled.stderr == (
        "3 of 3 destinations and 7 of 9 schedules are carried over; comments say what is different.\n"
    )


def test_a_destination_is_carried_over(pulled: Result) -> None:
    warehouse, archive, lake = exports_of(pulled.stdout).destinations
    assert isinstance(archive, S3Destination)
    assert isinstance(lake, GcsDestination)
    assert (warehouse.name, warehouse.bucket_name, warehouse.prefix) == (
        "Data warehouse bucket",
        "acme-m3ter-exports",
        "m3ter",
    )
    assert (warehouse.partition_order, archive.partition_order) == ("TIME_FIRST", "TYPE_FIRST")
    assert (archive.name, archive.prefix, archive.iam_role_arn) == ("Archive: cold storage", "", ROLE)


def test_a_schedule_is_carried_over_and_stays_due_when_it_was(pulled: Result) -> None:
    finance, bills, meters, _, office_hours, quarterly, usage = exports_of(pulled.stdout).schedules
    assert isinstance(finance, ExportSchedule)
    assert isinstance(usage, UsageSchedule)
    assert (usage.time_period, usage.asset_names, usage.destinations) == ("YESTERDAY", ("usage_raw",), ("warehouse",))
    assert finance.operational_data_types == ("account", "account_plan", "commitment")
    assert finance.destinations == ("warehouse",)
    assert (finance.schedule_type, finance.period) == ("DAY", 2)
    assert finance.dt_created == datetime(2024, 6, 11, 10, 0, 0, 123000, tzinfo=UTC)
    assert (bills.schedule_type, bills.period, bills.offset) == ("HOUR", 5, 15)
    assert (quarterly.schedule_type, quarterly.period) == ("MINUTE", 15)
    assert (office_hours.cron_expression, office_hours.schedule_type) == ("0 8-18 * * 1-5", None)
    assert (finance.export_file_format, meters.export_file_format) == ("CSV", "JSONL")


@pytest.mark.parametrize(
    "comment",
    [
        "its pool 'm3ter' lets m3ter in and is not needed: the credentials are yours.",
        "its code in m3ter is 'type'.",
        "schedule 'download' is not carried over: it has no destination, m3ter only keeps its files for download; "
        "give it destinations.",
        "schedule 'once' is not carried over: it runs once, on request; `m3ter-dagster export` does that.",
    ],
)
def test_what_is_different_here_is_said_in_a_comment(pulled: Result, comment: str) -> None:
    assert f"\n  # {comment}\n" in pulled.stdout


def test_a_comment_keeps_everything_that_m3ter_knows(pulled: Result) -> None:
    once = pulled.stdout.split("# - code: once\n")[1].split("  - code")[0]
    lines = [line.removeprefix("  #   ") for line in once.splitlines()]
    assert [line for line in lines if line.strip() and not line.startswith("  # schedule")] == [
        "name: Once export",
        "sourceType: OPERATIONAL",
        "operationalDataTypes: [CONTRACTS]",
        "destinations: [archive]",
        "scheduleType: AD_HOC",
        "dtCreated: '2024-06-18T10:00:00.123Z'",
    ]


@pytest.mark.parametrize(
    ("values", "comment"),
    [
        ({"offset": 30}, "it has the offset 30, which with DAY is in hours; write 1 to 23"),
        (
            {"cronExpression": "0 0 L * ?"},
            "it has the cronExpression '0 0 L * ?', and 'L' is no day of the month; write such as 0 8-18 * * MON-FRI, "
            "times in UTC",
        ),
    ],
)
def test_what_m3ter_takes_and_this_project_does_not(values: dict[str, Any], comment: str) -> None:
    text = text_of([destination()], [schedule(**values)])
    assert f"# schedule 'nightly-0' is not carried over: {comment}.\n" in text


def test_what_a_usage_schedule_chooses_is_carried_over() -> None:
    aggregations = [{"meterId": "m-1", "fieldCode": "gb", "fieldType": "MEASURE", "function": "SUM"}]
    groups = [{"groupType": "ACCOUNT"}, {"groupType": "TIME", "frequency": "WEEK"}]
    chosen = {"meterIds": ["m-1"], "accountIds": [], "aggregations": aggregations, "groups": groups}
    text = text_of([destination()], [usage_schedule(**chosen)])
    (found,) = exports_of(text).schedules
    assert isinstance(found, UsageSchedule)
    assert (found.aggregation_frequency, found.meter_ids, found.account_ids) == ("WEEK", ("m-1",), ())
    assert [group.group_type for group in found.groups] == ["ACCOUNT"]
    assert found.aggregations[0].function == "SUM"


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([], "it aggregates over no time; give it an aggregationFrequency"),
        ([{"groupType": "TIME", "frequency": "QUARTER"}], "it has the aggregationFrequency 'QUARTER'; write ORIGINAL"),
    ],
)
def test_a_usage_schedule_without_a_place_in_the_published_schema(groups: list[Any], words: str) -> None:
    aggregations = [{"meterId": "m-1", "fieldCode": "gb", "fieldType": "MEASURE", "function": "SUM"}]
    text = text_of([destination()], [usage_schedule(aggregations=aggregations, groups=groups)])
    assert words in text
    assert not exports_of(text).schedules


def test_of_a_usage_schedule_only_what_is_wrong_is_said() -> None:
    text = text_of([destination()], [usage_schedule(meterIds=["not an id"])])
    assert "it names the id 'not an id'" in text
    assert "default_factory" not in text


def usage_schedule(**values: Any) -> dict[str, Any]:
    record = schedule(sourceType="USAGE", timePeriod="YESTERDAY", **values)
    return {name: value for name, value in record.items() if name != "operationalDataTypes"}


def test_long_lists_are_read_to_their_end() -> None:
    destinations = [destination(number) for number in range(203)]
    schedules = [schedule(number, destinationIds=["destination-202"]) for number in range(103)]
    routes = data_export_routes(destinations, schedules)
    with SandboxApi([], further_routes=[routes], requests_per_second=None) as api:
        result = CliRunner().invoke(main, ["pull"], env={**api.environment, "M3TER_REQUESTS_PER_SECOND": "50"})
        queries = [one.query.split("&")[0] for one in api.requests if one.query]
    assert result.exit_code == 0
    exports = exports_of(result.stdout)
    assert (len(exports.destinations), len(exports.schedules)) == (203, 103)
    assert queries == ["pageSize=200"] * 2 + ["pageSize=100"] * 2


def test_all_entities_are_all() -> None:
    everything = [entity.operational_data_type for entity in operational_entities().values()]
    (found,) = exports_of(text_of([destination()], [schedule(operationalDataTypes=everything)])).schedules
    assert found.operational_data_types == tuple(operational_entities())
    assert "operationalDataTypes: ALL" in text_of([destination()], [schedule(operationalDataTypes=everything)])


def test_codes_that_are_taken_in_dagster_are_numbered() -> None:
    codes = ["a-b", "a b", "a_b", "due_exports", "import", "x" * LONGEST_CODE, "x" * LONGEST_CODE]
    schedules = [schedule(number, code=code) for number, code in enumerate(codes)]
    assert [one.code for one in exports_of(text_of([destination()], schedules)).schedules] == [
        *("a-b", "a b_2", "a_b_3", "due_exports_export", "import_export"),
        *("x" * LONGEST_CODE, "x" * (LONGEST_CODE - 4) + "_2"),
    ]


def test_a_code_that_is_missing_is_the_name_or_the_id() -> None:
    schedules = [schedule(1, code=None, name="Every night"), schedule(2, code="\t")]
    assert [one.code for one in exports_of(text_of([destination()], schedules)).schedules] == [
        "Every night",
        "schedule-2",
    ]


@pytest.mark.parametrize(
    ("values", "comment"),
    [
        ({"bucketName": "Not_A_Bucket"}, "it has the bucketName 'Not_A_Bucket'; write the name of an S3 bucket"),
        ({"prefix": "a//b"}, "it has the prefix 'a//b'; write folders such as"),
        ({"prefix": "${HOME}"}, "it has a value with ${, which exports.yaml takes for a variable of the environment."),
    ],
)
def test_what_this_project_refuses_is_a_comment_in_its_words(values: dict[str, Any], comment: str) -> None:
    text = text_of([destination(), destination(1, **values)], [])
    assert f"# destination 'warehouse-1' is not carried over: {comment}" in text
    assert len(exports_of(text).destinations) == 1


def test_a_destination_of_a_kind_that_m3ter_has_added_since_is_left_out() -> None:
    destinations = [destination(), destination(1, code="lake", destinationType="AZURE")]
    schedules = [
        schedule(1, destinationIds=["destination-0", "destination-1"]),
        schedule(2, destinationIds=["destination-1"]),
    ]
    text = text_of(destinations, schedules)
    for comment in (
        "destination 'lake' is not carried over: it is of type AZURE, which this project does not deliver to.",
        "its destination 'lake' is not carried over.",
        "schedule 'nightly-2' is not carried over: none of its destinations is carried over; give it another.",
    ):
        assert f"\n  # {comment}\n" in text


def test_a_service_account_of_m3ter_s_is_carried_over() -> None:
    account = "m3ter-export@acme.iam.gserviceaccount.com"
    (lake,) = exports_of(text_of([destination(destinationType="GCS", serviceAccountEmail=account)], [])).destinations
    assert isinstance(lake, GcsDestination)
    assert lake.service_account_email == account


def test_a_data_type_that_m3ter_has_added_since_is_left_out() -> None:
    text = text_of([destination()], [schedule(operationalDataTypes=["CHARGES", "STATEMENTS"])])
    assert "\n  # 'STATEMENTS' is not carried over: this project does not export it.\n" in text
    assert exports_of(text).schedules[0].asset_names == ("charge",)


def test_a_schedule_of_nothing_that_is_exported_here() -> None:
    text = text_of([destination()], [schedule(operationalDataTypes=["STATEMENTS"])])
    assert "is not carried over: it exports nothing that this project exports." in text
    assert exports_of(text).schedules == ()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["null", "true", "1", "- a", "a: b", "#", "a\n# b", "${HOME}", "*a", "\u2028x", "\x85", "🚀", "type", "'\"\\"]
)


@pytest.mark.slow
@settings(deadline=None, max_examples=200)
@example(names=["__"], prefix="", role="", to="")
@given(names=st.lists(TEXTS, min_size=1, max_size=3), prefix=TEXTS, role=TEXTS, to=TEXTS)
def test_whatever_m3ter_holds_the_file_can_be_read(names: list[str], prefix: str, role: str, to: str) -> None:
    destinations = [destination()] + [
        destination(number, code=name, name=name, prefix=prefix, iamRoleArn=role)
        for number, name in enumerate(names, 1)
    ]
    schedules = [
        schedule(number, code=name, name=name, destinationIds=["destination-0", "destination-1", to])
        for number, name in enumerate(names, 1)
    ]
    exports = exports_of(text_of(destinations, schedules))
    assert len(exports.schedules) == len(schedules)


def test_an_organization_without_the_service_is_told_so() -> None:
    with SandboxApi([]) as api:
        result = pull(api)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "The Data Export service is not enabled for Organization" in result.stderr
    assert "status 404" in result.stderr


def test_so_is_one_that_may_not_read_it() -> None:
    routes = Blueprint("forbidden", __name__)

    @routes.get("/dataexports/destinations")
    def refuse() -> None:
        raise Forbidden("Not for you.")

    with SandboxApi([], further_routes=[routes]) as api:
        result = pull(api)
    assert result.exit_code == 1
    assert "The Data Export service is not enabled for Organization" in result.stderr
    assert "Not for you." in result.stderr


@pytest.mark.parametrize("row", [rb'"\ud800"', b"7", b"[" * 5000 + b"]" * 5000])
def test_a_destination_that_is_no_record_is_told(row: bytes) -> None:
    routes = Blueprint("odd", __name__)

    @routes.get("/dataexports/destinations")
    def answer() -> bytes:
        return b'{"data":[' + row + b"]}"

    with SandboxApi([], further_routes=[routes]) as api:
        result = pull(api)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("/dataexports/destinations lists what is no record (")


def test_without_any_destination_there_is_nothing_to_use() -> None:
    azure = destination(code="lake", destinationType="AZURE")
    with SandboxApi([], further_routes=[data_export_routes([azure], [])]) as api:
        result = pull(api)
    assert result.exit_code == 1
    assert "destinations: []\n  # destination 'lake' is not carried over" in result.stdout
    assert "exports.yaml needs a destination before it can be used; write one." in result.stderr


def test_without_credentials_it_is_wrong_use() -> None:
    nothing = dict.fromkeys(("M3TER_API_KEY", "M3TER_API_SECRET", "M3TER_ORG_ID"), "")
    result = CliRunner().invoke(main, ["pull"], env=nothing)
    assert result.exit_code == 2
    assert "M3TER_API_KEY is not set" in result.stderr
