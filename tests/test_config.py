from __future__ import annotations

import json
import os
import pickle
import re
import sys
import tempfile
from collections.abc import Collection
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from dagster._core.definitions.utils import DISALLOWED_NAMES, is_valid_owner
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from m3ter_dagster.config import (
    EXAMPLE,
    ConfigError,
    Exports,
    ExportSchedule,
    LocalDestination,
    M3terSettings,
    Notifications,
    S3Destination,
    Settings,
    UsageSchedule,
    UsageSelection,
    executor,
    exports_json_schema,
    exports_path,
    load_exports,
    load_m3ter_settings,
    load_settings,
    parse_exports,
)
from m3ter_dagster.config.names import OWN, RESERVED
from m3ter_dagster.config.usage import UsageRawByDay
from m3ter_dagster.config.wording import refusals
from m3ter_dagster.model.entities import entities, operational_entities
from m3ter_dagster.model.time_periods import TIME_PERIODS

ROOT = Path(__file__).parents[1]
CREDENTIALS = {"M3TER_API_KEY": "the-key", "M3TER_API_SECRET": "the-secret", "M3TER_ORG_ID": "the-organization"}

WHOLE = """\
destinations:
  - code: warehouse
    name: Data warehouse bucket
    destinationType: S3
    bucketName: acme-m3ter-exports
    prefix: /m3ter/exports/
    partitionOrder: TYPE_FIRST
    iamRoleArn: arn:aws-cn:iam::123456789012:role/m3ter-export
    externalId: ${EXTERNAL_ID}
    region: eu-west-1
    endpointUrl: http://localhost:9000/
    stsEndpointUrl: https://sts.example.com
    serverSideEncryption: aws:kms
    kmsKeyId: alias/exports
  - {code: archive, bucketName: archive.acme}
schedules:
  - code: finance
    name: Finance, every five days
    sourceType: OPERATIONAL
    operationalDataTypes: [COMMITMENTS, ACCOUNTS, account_plan, ACCOUNTS]
    destinations: [warehouse, archive]
    scheduleType: DAY
    period: 5
    dtCreated: 2024-06-01T12:00:00+02:00
  - code: 007
    operationalDataTypes: ALL
    destinations:
      - archive
    scheduleType: HOUR
    period: 12
    dtCreated: 2024-06-01 10:00:00Z
defaultDestinations: [archive]
owners: [team:finance, data@acme.com]
notifications:
  webhookUrl: ${WEBHOOK_URL}
  onSuccess: true
  graceHours: 1.5
  dagsterUrl: https://dagster.example.com/
"""
WEBHOOK = "https://acme.webhook.example.com/a@b/hunter2?sig=hunter3"

# The file that each wrong one below differs from in one place.
DESTINATION = """\
destinations:
  - code: warehouse
    bucketName: acme-exports
"""
ARCHIVE = """\
  - code: archive
    bucketName: acme-archive
"""
SCHEDULE = """\
schedules:
  - code: nightly
    operationalDataTypes: [BILLS]
    destinations: [warehouse]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T10:00:00Z
"""
GOOD = DESTINATION + ARCHIVE + SCHEDULE
NOTIFIED = """\
00Z
notifications:
  webhookUrl: https://chat.example.com/hook
"""


def parse(text: str, **environ: str) -> Exports:
    return parse_exports(text, environ=environ)


NOT_SEEN_IN_AN_EDITOR = (
    *("cronExpression: '*/5 * * * *'", "cronExpression: 0 25 * * *"),
    "scheduleType: DAY\n    period: 1\n    offset: 24",
)
DAILY = "scheduleType: DAY\n    period: 1"


def mistakes_in(text: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as raised:
        parse(text, **environ)
    return raised.value.mistakes


def test_the_whole_file() -> None:
    exports = parse(WHOLE, EXTERNAL_ID="a-shared-id", WEBHOOK_URL=WEBHOOK)
    warehouse, archive = exports.destinations
    assert warehouse == S3Destination(
        code="warehouse",
        name="Data warehouse bucket",
        destination_type="S3",
        bucket_name="acme-m3ter-exports",
        prefix="m3ter/exports",
        partition_order="TYPE_FIRST",
        iam_role_arn="arn:aws-cn:iam::123456789012:role/m3ter-export",
        external_id="a-shared-id",
        region="eu-west-1",
        endpoint_url="http://localhost:9000",
        sts_endpoint_url="https://sts.example.com",
        server_side_encryption="aws:kms",
        kms_key_id="alias/exports",
    )
    assert archive == S3Destination(code="archive", bucket_name="archive.acme")
    assert exports.destination("archive") is archive
    assert exports.default_destinations == ("archive",)
    finance, agent = exports.schedules
    assert finance == ExportSchedule(
        code="finance",
        name="Finance, every five days",
        source_type="OPERATIONAL",
        operational_data_types=("account", "account_plan", "commitment"),
        destinations=("warehouse", "archive"),
        schedule_type="DAY",
        period=5,
        dt_created=datetime(2024, 6, 1, 10, tzinfo=UTC),
    )
    assert (agent.code, agent.name, agent.period) == ("007", "007", 12)
    assert agent.operational_data_types == tuple(operational_entities())
    assert exports.owners == ("team:finance", "data@acme.com")
    assert exports.notifications == Notifications.model_validate(
        {
            "webhook_url": WEBHOOK,
            "on_success": True,
            "grace_hours": 1.5,
            "dagster_url": "https://dagster.example.com",
        }
    )


def test_history_is_kept_for_ever_unless_an_age_is_written() -> None:
    assert parse(GOOD).keep_history is None
    assert parse(GOOD + "keepHistory: 90d\n").keep_history == timedelta(days=90)
    assert parse(GOOD + "keepHistory: ${KEEP}\n", KEEP="12w").keep_history == timedelta(weeks=12)


def test_switches_are_off_until_they_are_thrown() -> None:
    assert (parse(GOOD).previews, parse(GOOD).escape_formulas) == (False, False)
    exports = parse(GOOD + "previews: true\nescapeFormulas: true\n")
    assert (exports.previews, exports.escape_formulas) == (True, True)


def test_the_format_is_that_of_the_schedule_or_for_exports_that_people_start_that_of_the_file() -> None:
    plain = parse(GOOD)
    assert [(one.export_file_format, one.compression) for one in (plain, plain.schedules[0])] == [("CSV", None)] * 2
    both = parse(GOOD + "    exportFileFormat: PARQUET\nexportFileFormat: JSONL\ncompression: GZIP\n")
    chosen = [both.schedule("nightly"), both.schedule("of an earlier file") or both]
    assert [(one and one.export_file_format, one and one.compression) for one in chosen] == [
        ("PARQUET", None),
        ("JSONL", "GZIP"),
    ]


def test_a_file_of_raw_measurements_per_day_is_asked_for_with_its_first_day() -> None:
    assert parse(GOOD).usage_raw_by_day is None
    assert parse(GOOD + "usageRawByDay: {firstDay: 2024-02-29}\n").usage_raw_by_day == UsageRawByDay(
        first_day=date(2024, 2, 29)
    )
    for text, wanted in ((GOOD, False), (f"{GOOD}    changes: true\n", True)):
        (schedule,) = parse(text).schedules
        assert isinstance(schedule, ExportSchedule)
        assert schedule.changes is wanted


def test_exports_travel_to_other_processes() -> None:
    exports = parse(WHOLE, EXTERNAL_ID="a-shared-id", WEBHOOK_URL=WEBHOOK)
    assert pickle.loads(pickle.dumps(exports)) == exports


def test_what_may_be_left_out() -> None:
    exports = parse("destinations:\n- code: a\n  bucketName: abc\n  region:\nschedules:\n")
    (destination,) = exports.destinations
    assert (exports.schedules, exports.owners, exports.notifications) == ((), (), None)
    assert exports.default_destinations == ("a",)
    assert (destination.name, destination.prefix, destination.partition_order) == ("a", "", "TIME_FIRST")
    assert destination.region is None


def test_the_models_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse(GOOD).destinations[0].code = "other"  # ty: ignore[invalid-assignment]


def test_text_is_never_reinterpreted() -> None:
    codes = ["007", "on", "1e3", "2024-06-01", "nul", "0x1f", "1_000", "é"]
    text = "destinations:\n" + "".join(f"- code: {code}\n  bucketName: abc\n" for code in codes)
    assert [destination.code for destination in parse(text).destinations] == codes


@pytest.mark.parametrize("null", ["", "null", "Null", "NULL", "~"])
def test_null_is_nothing_and_text_only_in_quotes(null: str) -> None:
    (destination,) = parse(f"{DESTINATION}    prefix: {null}\n    region: {null}\n").destinations
    assert (destination.prefix, destination.region) == ("", None)
    (destination,) = parse(f"{DESTINATION}    prefix: '{null}'\n").destinations
    assert destination.prefix == null


def test_what_is_reused_follows_from_the_entities() -> None:
    text = GOOD.replace("[BILLS]", "[BILLS, BILL_LINE_ITEMS]\n    reuse: unchangedBills\n    fullEvery: 30")
    for written, reused, full_every in ((text, ["bill_line_item"], 30), (GOOD.replace("[BILLS]", "ALL"), [], 7)):
        (schedule,) = parse(written).schedules
        assert isinstance(schedule, ExportSchedule)
        assert ([one.name for one in schedule.reused], schedule.full_every) == (reused, full_every)


def test_columns_are_excluded_by_entity() -> None:
    excluded = "excludeColumns: {ACCOUNTS: [emailAddress, address], bill: []}"
    (schedule,) = parse(GOOD.replace("[BILLS]", f"ALL\n    {excluded}")).schedules
    assert isinstance(schedule, ExportSchedule)
    assert schedule.excluded == {"account": ("address", "emailAddress"), "bill": ()}
    assert len({hash(one) for one in (schedule, pickle.loads(pickle.dumps(schedule)))}) == 1


def test_all_may_stand_in_the_list() -> None:
    text = GOOD.replace("[BILLS]", "[ALL, BILLS]")
    assert parse(text).schedules[0].operational_data_types == tuple(operational_entities())


@pytest.mark.parametrize(
    ("written", "added"),
    [
        ("ALL_AND_REFERENCES", entities()),
        ("[ALL_AND_REFERENCES]", entities()),
        ("[ALL, COUNTERS, credit_reason]", ["counter", "credit_reason"]),
    ],
)
def test_references_are_exported_where_they_are_named(written: str, added: Collection[str]) -> None:
    (schedule,) = parse(GOOD.replace("[BILLS]", written)).schedules
    assert schedule.asset_names == tuple(name for name in entities() if name in {*operational_entities(), *added})


def test_the_moment_is_in_utc() -> None:
    there = timezone(timedelta(hours=-7))
    schedule = parse(GOOD).schedules[0].model_dump() | {"dt_created": datetime(2024, 6, 1, 3, tzinfo=there)}
    assert ExportSchedule.model_validate(schedule).dt_created.isoformat() == "2024-06-01T10:00:00+00:00"


def test_a_schedule_has_a_name_that_dagster_takes() -> None:
    assert parse(GOOD.replace("nightly", "night ly-ü.1")).schedules[0].dagster_name == "night_ly___1"


def test_minutes_are_fifteen_or_more_unless_a_caller_says_otherwise() -> None:
    minutes = GOOD.replace("DAY", "MINUTE").replace("period: 1", "period: 15", 1)
    assert parse(minutes).schedules[0].cadence.words() == "every 15 minutes since 2024-06-01 10:00 UTC"
    often = minutes.replace("period: 15", "period: 1")
    with pytest.raises(ConfigError, match="has the period 1 of scheduleType MINUTE; write 15 or more"):
        parse(often)
    exports = parse_exports(often, environ={}, shortest_period=timedelta(minutes=1))
    assert exports.schedules[0].cadence.words() == "every minute since 2024-06-01 10:00 UTC"


@pytest.mark.parametrize(
    ("often", "words"),
    [
        ("cronExpression: 0  8-18 * * MON-FRI", "by the cron expression 0 8-18 * * MON-FRI since 2024-06-01 10:00 UTC"),
        ("scheduleType: DAY\n    period: 2\n    offset: 5", "every 2 days at 05:00 since 2024-06-01 10:00 UTC"),
        ("scheduleType: HOUR\n    period: 5\n    offset: 59", "every 5 hours at minute 59 since 2024-06-01 10:00 UTC"),
    ],
)
def test_how_often(often: str, words: str) -> None:
    assert parse(GOOD.replace(DAILY, often, 1)).schedules[0].cadence.words() == words


@pytest.mark.parametrize(
    ("often", "line", "words"),
    [
        (
            "cronExpression: '*/5 * * * *'",
            10,
            "has the cronExpression '*/5 * * * *', which is due 5 minutes after the time before; write one whose times "
            "are at least 15 minutes apart.",
        ),
        (
            "cronExpression: 0 25 * * *",
            10,
            "has the cronExpression '0 25 * * *', and '25' is no hour from 0 to 23; write such as 0 8-18 * * MON-FRI, "
            "times in UTC.",
        ),
        ("cronExpression: [0]", 10, "has a list as cronExpression; write one text."),
        (
            "cronExpression: 0 8 * * *\n    scheduleType: DAY",
            11,
            "has a cronExpression and the scheduleType 'DAY'; write only one.",
        ),
        ("cronExpression: 0 8 * * *\n    period: 4", 11, "has a cronExpression and the period 4; write only one."),
        (
            "cronExpression: 0 8 * * *\n    offset: 4",
            11,
            "has the offset 4 and a cronExpression, which takes none; leave the offset out.",
        ),
        (
            "scheduleType: MINUTE\n    period: 15\n    offset: 1",
            12,
            "has the offset 1 and the scheduleType MINUTE, which takes none; leave the offset out.",
        ),
        (
            "scheduleType: DAY\n    period: 1\n    offset: 24",
            12,
            "has the offset 24, which with DAY is in hours; write 1 to 23.",
        ),
        (
            "scheduleType: HOUR\n    period: 1\n    offset: 60",
            12,
            "has the offset '60'; write a whole number from 1 to 59, such as 5.",
        ),
        ("scheduleType: HOUR", 7, "has no 'period'; write it, such as period: 5."),
        ("period: 5", 7, "has no 'scheduleType'; write it, such as scheduleType: DAY."),
    ],
)
def test_what_is_wrong_with_how_often_is_said_once(often: str, line: int, words: str) -> None:
    text = GOOD.replace(DAILY, often, 1)
    assert mistakes_in(text) == (f"exports.yaml:{line}: schedule 'nightly' {words}",)
    assert (
        not jsonschema.Draft7Validator(exports_json_schema()).is_valid(in_editor(text))
        or often in NOT_SEEN_IN_AN_EDITOR
    )


def test_names_that_dagster_reserves() -> None:
    assert DISALLOWED_NAMES | set(OWN) == RESERVED


def test_a_variable_anywhere_in_a_text() -> None:
    text = GOOD.replace("acme-exports", "acme-${STAGE}-${STAGE}").replace("period: 1", "period: '${PERIOD}'")
    exports = parse(text, STAGE="test", PERIOD="3")
    assert exports.destinations[0].bucket_name == "acme-test-test"
    assert exports.schedules[0].period == 3


def test_models_made_in_code_are_checked_alike() -> None:
    destination = S3Destination(code="a", bucket_name="abc")
    with pytest.raises(ValidationError, match="names the destination 'b'; known are a"):
        Exports(destinations=(destination,), default_destinations=("b",))


def test_a_folder_as_a_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    text = "destinations: [{code: a, destinationType: LOCAL, path: ~/exports/}, {code: b, bucketName: abc}]"
    folder = LocalDestination(code="a", destination_type="LOCAL", path=Path("/home/somebody/exports"))
    assert parse(text).destinations == (folder, S3Destination(code="b", bucket_name="abc"))
    assert Exports(destinations=(folder,)).destinations == (folder,)
    assert folder.prefix == ""


PIECES = ["\n", ": ", "- ", "  ", "[", "]", "{}", "&a ", "*a", "${", "}", "${A}", "code: ", "'", '"', "#", "? "]

BUCKET, LOCAL = "bucketName: acme-exports", "destinationType: LOCAL\n    path:"
# (what to replace in GOOD, by what, line, words)
WRONG = [
    ("code: warehouse", "code: ''", 2, "destination '' has the code ''; write 1 to 80 characters"),
    ("code: warehouse", f"code: {'x' * 81}", 2, "write 1 to 80 characters"),
    ("code: warehouse", "code: 'warehouse '", 2, "has the code 'warehouse '; write 1 to 80 characters"),
    ("code: warehouse", 'code: "ware\\u0007"', 2, "without control characters"),
    ("code: warehouse", "code: [a]", 2, "destination number 1 has a list as code; write one text"),
    ("code: warehouse\n    ", "", 2, "destination number 1 has no 'code'; write it, such as code: warehouse"),
    ("code: warehouse", "code:", 2, "destination number 1 has nothing behind 'code'; write it"),
    ("code: archive", "code: warehouse", 4, "destination 'warehouse' has the code of an earlier destination"),
    ("bucketName: acme-exports", "name: x", 2, "has no 'bucketName'; write it, such as bucketName: acme-m3ter-exports"),
    ("acme-exports", "Acme_Exports", 3, "has the bucketName 'Acme_Exports'; write the name of an S3 bucket: 3 to 63"),
    ("acme-exports", "ab", 3, "has the bucketName 'ab'"),
    ("acme-exports", "10.0.0.1", 3, "not an IP address"),
    ("acme-exports", "a..b", 3, "no two dots together"),
    ("acme-exports", "abc\n    prefix: a//b", 4, "has the prefix 'a//b'; write folders such as 'm3ter/exports'"),
    ("acme-exports", "abc\n    prefix: ../b", 4, "has the prefix '../b'"),
    ("acme-exports", f"abc\n    prefix: {'é' * 257}", 4, "at most 512 bytes"),
    ("acme-exports", "abc\n    bucketname: x", 4, "unknown key 'bucketname'; known are bucketName, code,"),
    ("acme-exports", "abc\n    bucketname: x", 4, "Did you mean 'bucketName'?"),
    ("acme-exports", "abc\n    bucket_name: x", 4, "has the unknown key 'bucket_name'"),
    ("acme-exports", "abc\n    destinationType: GC", 4, "has the destinationType 'GC'; write S3, GCS or LOCAL."),
    ("acme-exports", "Abc\n    destinationType: GCS", 3, "write the name of a bucket of Google Cloud Storage: 3 to 63"),
    (
        "acme-exports",
        "abc\n    destinationType: GCS\n    serviceAccountEmail: me@acme.com",
        5,
        "write the address of a service account, such as m3ter-export@acme.iam.gserviceaccount.com",
    ),
    ("acme-exports", "abc\n    destinationType: GCS\n    iamRoleArn: x", 5, "belongs to the destinationType S3; leave"),
    (
        BUCKET,
        "destinationType: LOCAL",
        2,
        "destination 'warehouse' has no 'path'; write it, such as path: /srv",
    ),
    (
        BUCKET,
        f"{LOCAL} exports",
        4,
        "has the path 'exports'; write the absolute path of a folder without '..', such",
    ),
    (BUCKET, f"{LOCAL} ~nobody-at-all/x", 4, "has the path '~nobody-at-all/x'; write the absolute path of a folder"),
    (BUCKET, f"{LOCAL} /srv/../x", 4, "has the path '/srv/../x'; write the absolute path of a folder without '..'"),
    (BUCKET, f"{LOCAL} [/srv]", 4, "has a list as path; write the absolute path of a folder"),
    (BUCKET, f"{LOCAL}", 4, "has nothing behind 'path'; write it, such as path: /srv/m3ter-exports"),
    (
        BUCKET,
        f"{LOCAL} /x\n    prefix: a",
        5,
        "'prefix', which belongs to the destinationType S3; leave it out, or",
    ),
    (
        BUCKET,
        f"{LOCAL} /x\n    pat: a",
        5,
        "has the unknown key 'pat'; known are code, destinationType, name, part",
    ),
    (
        BUCKET,
        f"{BUCKET}\n    path: /x",
        4,
        "'path', which belongs to the destinationType LOCAL; leave it out",
    ),
    ("acme-exports", "abc\n    partitionOrder: TIME", 4, "'TIME'; write TIME_FIRST or TYPE_FIRST."),
    ("acme-exports", "abc\n    iamRoleArn: arn:aws:iam::1:user/x", 4, "arn:aws:iam::123456789012:role/m3ter-export"),
    ("acme-exports", "abc\n    externalId: secret-id", 4, "has an externalId and no iamRoleArn; write the iamRoleArn"),
    ("acme-exports", "abc\n    region: eu west", 4, "has the region 'eu west'; write a region such as eu-west-1"),
    (
        "acme-exports",
        "abc\n    endpointUrl: s3.example.com",
        4,
        "has the endpointUrl 's3.example.com'; write an",
    ),
    ("acme-exports", "abc\n    endpointUrl: http://host?a", 4, "has the endpointUrl 'http://host?a'; write an address"),
    ("acme-exports", "abc\n    endpointUrl: http://", 4, "has the endpointUrl 'http://'"),
    ("acme-exports", "abc\n    endpointUrl: http://host:99999", 4, "has the endpointUrl 'http://host:99999'"),
    ("acme-exports", "abc\n    stsEndpointUrl: ftp://x", 4, "has the stsEndpointUrl 'ftp://x'"),
    ("acme-exports", "abc\n    serverSideEncryption: KMS", 4, "'KMS'; write AES256 or aws:kms."),
    ("acme-exports", "abc\n    kmsKeyId: k1", 4, "has the kmsKeyId 'k1'; it needs serverSideEncryption: aws:kms"),
    ("acme-exports", "${BUCKET}", 3, "destination 'warehouse' uses ${BUCKET}; set the environment variable BUCKET"),
    ("acme-exports", "${my-bucket}", 3, "has '${my-bucket}'; write ${NAME} with the name of an environment variable"),
    ("acme-exports", "${BUCKET", 3, "has '${BUCKET'; write ${NAME}"),
    ("acme-exports", "abc\n    bucketName: abd", 4, "gives 'bucketName' a second time; the first is on line 3"),
    ("acme-exports", "abc: d", 3, "the file is not YAML: mapping values are not allowed here; check indentation and"),
    ("acme-exports", "'abc", 3, "the file is not YAML: found unexpected end of stream"),
    ("    bucketName: acme-exports", "\tbucketName: x", 3, "the file is indented with a tab; write spaces."),
    ("code: nightly", "code: a,b\n  - code: a", 7, "schedule 'a,b' has no 'operationalDataTypes'"),
    ("code: nightly", "code: due-exports", 7, "keeps for itself; write another code, such as 'due_exports_export'"),
    ("code: nightly", "code: late exports", 7, "keeps for itself; write another code, such as 'late_exports_export'"),
    ("code: warehouse", "code: mro", 2, "destination 'mro' has a code that Python keeps for itself"),
    ("code: warehouse", "code: __a__", 2, "destination '__a__' has a code that Python keeps for itself"),
    ("code: nightly", "code: config", 7, "schedule 'config' has a code that Dagster keeps for itself"),
    ("[BILLS]", "[BILS]", 8, "schedule 'nightly' names the operational data type 'BILS'; known are ACCOUNTS,"),
    ("[BILLS]", "[BILS]", 8, "Did you mean 'BILLS'?"),
    ("[BILLS]", "\n      - BILLS\n      - statement", 10, "names the operational data type 'statement'"),
    ("[BILLS]", "[[BILLS]]", 8, "has a list as operational data type; write one text"),
    (
        "[BILLS]",
        "BILLS",
        8,
        "'BILLS' as operationalDataTypes; write a list of entities such as [ACCOUNTS, BILLS], or ALL",
    ),
    ("[BILLS]", "[]", 8, "has an empty list as operationalDataTypes; write at least one"),
    ("[BILLS]", "{BILLS: yes}", 8, "has a mapping as operationalDataTypes"),
    ("[BILLS]", "[BILLS]\n    reuse: bills", 9, "has the reuse 'bills'; write unchangedBills, or leave it out."),
    (
        "[BILLS]",
        "[BILLS]\n    reuse: unchangedBills",
        9,
        "has the reuse 'unchangedBills', which needs the operationalDataTypes BILLS and BILL_LINE_ITEMS; write them",
    ),
    (
        "[BILLS]",
        "ALL\n    excludeColumns: {ACCOUNTS: [adress]}",
        9,
        "excludes the column 'adress' of account; known are address, ",
    ),
    (
        "[BILLS]",
        "ALL\n    excludeColumns: {bill: [accountId]}",
        9,
        "excludes the column 'accountId' of bill, which rows are told apart or checked by; keep it",
    ),
    (
        "[BILLS]",
        "ALL\n    excludeColumns: {bill: [billTotal]}",
        9,
        "excludes the column 'billTotal' of bill, which rows",
    ),
    (
        "[BILLS]",
        "ALL\n    excludeColumns: {charge: [entityType]}",
        9,
        "excludes the column 'entityType' of charge, which",
    ),
    ("[BILLS]", "ALL\n    excludeColumns: {bils: [id]}", 9, "names the operational data type 'bils'; "),
    (
        "[BILLS]",
        "[BILLS]\n    excludeColumns: {ACCOUNTS: [address]}",
        9,
        "has excludeColumns of 'account', which it does not export; leave them out",
    ),
    (
        "[BILLS]",
        "ALL\n    excludeColumns: [address]",
        9,
        "needs entities with lists of their columns as excludeColumns, such as {ACCOUNTS: [address]}",
    ),
    ("[BILLS]", "ALL\n    fullEvery: 9", 9, "has a fullEvery without reuse, where it does nothing; write reuse, too"),
    ("[BILLS]", "ALL\n    fullEvery: 1", 9, "has the fullEvery '1'; write a whole number from 2 to 10000"),
    ("[warehouse]", "[warehous]", 9, "names the destination 'warehous'; known are archive, warehouse."),
    ("[warehouse]", "\n    - archive\n    - warehous", 11, "names the destination 'warehous'"),
    ("[warehouse]", "[archive, archive]", 9, "names the destination 'archive' twice; name it once"),
    ("[warehouse]", "[]", 9, "has an empty list as destinations; write at least one of destination codes"),
    ("[warehouse]", "warehouse", 9, "has the value 'warehouse' as destinations; write a list of destination codes"),
    ("[warehouse]", "", 9, "has nothing behind 'destinations'; write it, such as destinations: [warehouse]"),
    ("DAY", "WEEK", 10, "has the scheduleType 'WEEK'; write HOUR or DAY or MINUTE."),
    ("DAY", "[DAY]", 10, "has a list as scheduleType; write HOUR or DAY or MINUTE."),
    ("DAY", "day", 10, "has the scheduleType 'day'; write HOUR or DAY or MINUTE."),
    ("period: 1", "period: 0", 11, "has the period '0'; write a whole number from 1 to 10000, such as 5"),
    ("period: 1", "period: 1.5", 11, "has the period '1.5'; write a whole number"),
    ("period: 1", "period: five", 11, "has the period 'five'; write a whole number"),
    ("period: 1", "period: ' 1'", 11, "has the period ' 1'; write a whole number"),
    ("period: 1", "period:", 11, "has no 'period'; write it, such as period: 5"),
    ("period: 1", "period: -1", 11, "has the period '-1'"),
    ("period: 1", "period: 1_0", 11, "has the period '1_0'"),
    ("period: 1", "period: 10001", 11, "has the period '10001'"),
    ("period: 1", "period: [1]", 11, "has a list as period; write a whole number"),
    ("period: 1", "peroid: 1", 11, "unknown key 'peroid'; known are changes, code, completeness, compression,"),
    ("    period: 1\n", "", 7, "schedule 'nightly' has no 'period'; write it, such as period: 5"),
    ("00Z", "00", 12, "'2024-06-01T10:00:00', which has no time zone; write the moment with its zone, such as 2024-"),
    ("2024-06-01T10:00:00Z", "1717236000", 12, "has the dtCreated '1717236000'; write the moment with its zone"),
    ("2024-06-01T10:00:00Z", "yesterday", 12, "has the dtCreated 'yesterday'; write the moment with its zone"),
    ("2024-06-01T10:00:00Z", "1024-06-01T10:00:00Z", 12, "write a moment from 2000 to 2100"),
    ("2024-06-01T10:00:00Z", "0001-01-01T00:00:00+10:00", 12, "'0001-01-01T00:00:00+10:00'; write the moment"),
    ("2024-06-01T10:00:00Z", "[2024]", 12, "has a list as dtCreated; write the moment with its zone"),
    ("00Z\n", "00Z\n    sourceType: usage\n", 13, "has the sourceType 'usage'; write OPERATIONAL or USAGE."),
    (
        "00Z\n",
        "00Z\n    timePeriod: TODAY\n",
        13,
        "'timePeriod', which belongs to the sourceType USAGE; leave it out, or write sourceType: USAGE.",
    ),
    ("00Z\n", "00Z\n    exportFileFormat: XML\n", 13, "the exportFileFormat 'XML'; write CSV or JSONL or PARQUET."),
    ("00Z\n", "00Z\n    compression: ZIP\n", 13, "has the compression 'ZIP'; write GZIP, or leave it out"),
    (
        "00Z\n",
        "00Z\n    exportFileFormat: PARQUET\n    compression: GZIP\n",
        14,
        "has the compression 'GZIP' and PARQUET, which is compressed in itself; leave it out",
    ),
    (
        "00Z\n",
        "00Z\n    typed: true\n",
        13,
        "has typed: true, which only exportFileFormat: PARQUET has; write that, or leave it out",
    ),
    (
        "00Z\n",
        "00Z\nexportFileFormat: csv\n",
        13,
        "the file has the exportFileFormat 'csv'; write CSV or JSONL or PARQUET.",
    ),
    ("00Z\n", "00Z\n  -\n", 13, "schedule number 2 is nothing; write keys and values, such as code: nightly"),
    ("00Z\n", "00Z\n  - [a]\n", 13, "schedule number 2 is a list; write keys and values"),
    ("00Z\n", "00Z\ndefaultDestinations: [s3]\n", 13, "defaultDestinations names the destination 's3'; known are arch"),
    ("00Z\n", "00Z\ndefaultDestinations: []\n", 13, "has an empty list as defaultDestinations"),
    ("00Z\n", "00Z\nschedule: []\n", 13, "the file has the unknown key 'schedule'; known are completeness, c"),
    ("00Z\n", "00Z\ndestinations: []\n", 13, "the file gives 'destinations' a second time; the first is on line 1"),
    (SCHEDULE, "schedules: nightly\n", 6, "the file has the value 'nightly' as schedules; write a list of schedules"),
    (SCHEDULE, "schedules:\n  nightly: {}\n", 6, "the file has a mapping as schedules; write a list of schedules"),
    (
        DESTINATION + ARCHIVE,
        "",
        1,
        "the file has no 'destinations'; write it, such as destinations: [{bucketNa",
    ),
    (DESTINATION + ARCHIVE, "destinations: []\n", 1, "the file has an empty list as destinations; write at least one"),
    ("00Z\n", "00Z\nowners: data@acme.com\n", 13, "as owners; write a list of owners such as team:finance or data@"),
    ("00Z\n", "00Z\nowners: [finance]\n", 13, "owners names the owner 'finance'; write a team or an e-mail"),
    ("00Z\n", "00Z\nowners:\n- a@b.org\n- team:\n", 15, "owners has a mapping as owner; write one text"),
    ("00Z\n", "00Z\nowners: [data@acme]\n", 13, "'data@acme'; write a team or an e-mail, such as team:finance"),
    ("00Z\n", "00Z\nnotifications: [a]\n", 13, "the file has a list as notifications; write keys and values"),
    ("00Z\n", "00Z\nnotifications: {}\n", 13, "has no 'webhookUrl'; write it, such as webhookUrl: ${M3TER_WEBHO"),
    ("00Z\n", NOTIFIED + "  onsuccess: true\n", 15, "known are dagsterUrl, graceHours, onSuccess, webhookUrl."),
    ("00Z\n", "00Z\nkeepHistory: 90\n", 13, "the file has the keepHistory '90'; write days or weeks, such as 90d or"),
    ("00Z\n", "00Z\nkeepHistory: 99999d\n", 13, "has the keepHistory '99999d'; write days or weeks, such as 90d or"),
    ("00Z\n", "00Z\nkeepHistory: [90d]\n", 13, "the file has a list as keepHistory; write days or weeks"),
    ("00Z\n", "00Z\nusageRawByDay: 2024\n", 13, "the file has a text as usageRawByDay; write keys and values, such as"),
    (
        "00Z\n",
        "00Z\nusageRawByDay: {firstDay: 2024-02-30}\n",
        13,
        "firstDay '2024-02-30'; write the day, such as 2024-01-",
    ),
    ("00Z\n", "00Z\nusageRawByDay: {firstDay: 1024-01-01}\n", 13, "'1024-01-01'; write a moment from 2000 to 2100"),
    ("00Z\n", "00Z\npreviews: 1\n", 13, "the file has the previews '1'; write true or false."),
    ("00Z\n", NOTIFIED + "  onSuccess: yes\n", 15, "notifications has the onSuccess 'yes'; write true or false."),
    ("00Z\n", NOTIFIED + "  graceHours: 0\n", 15, "has the graceHours '0'; write a number of hours above 0 and at"),
    ("00Z\n", NOTIFIED + "  graceHours: 168.5\n", 15, "'168.5'; write a number of hours above 0 and at most 168"),
    ("00Z\n", NOTIFIED + "  graceHours: nan\n", 15, "has the graceHours 'nan'; write a number of hours"),
    ("00Z\n", NOTIFIED + "  dagsterUrl: dagster:3000\n", 15, "has the dagsterUrl 'dagster:3000'; write an address"),
    ("00Z\n", NOTIFIED.replace("https", "ftp"), 14, "has a webhookUrl that is no http or https address; write the"),
    ("00Z\n", NOTIFIED.replace("/hook", "/hook#a"), 14, "has a webhookUrl that is no http or https address"),
    ("00Z\n", NOTIFIED.replace("https", "${HOOK}"), 14, "uses ${HOOK}; set the environment variable HOOK"),
    (GOOD, "", 1, "the file is empty; write 'destinations:'"),
    (GOOD, "# nothing but a comment\n", 1, "the file is empty"),
    (GOOD, "- code: a\n", 1, "the file is a list; write keys and values, such as destinations: [{"),
    (GOOD, "warehouse", 1, "the file is the value 'warehouse'; write keys and values"),
    (GOOD, "a: [b", 1, "the file is not YAML: expected ',' or ']', but got '<stream end>'"),
    (GOOD, "? [a]\n: b\n", 1, "the file has a list or mapping as a key; write a name"),
    (GOOD, "a: &a [*a]\n", 1, "the file is nested too deeply, or contains itself"),
    (GOOD, "a: *b\n", 1, "the file is not YAML: found undefined alias 'b'"),
    (GOOD, "a: b\n--- \nc: d\n", 2, "the file is not YAML: but found another document"),
    (GOOD, 'a: b\nc: "\x01"\n', 2, "the file is not YAML: a character that YAML does not allow"),
    (GOOD, "destinations:\n- {code: ${A}}\n", 2, "put a value with ${...} inside [ ] or { } in quotes"),
]


# The same for a schedule of usage data.
USAGE = """\
schedules:
  - code: daily
    sourceType: USAGE
    timePeriod: YESTERDAY
    meterIds: [meter-1]
    dimensionFilters:
      - {meterId: meter-1, fieldCode: region, values: [EU]}
    aggregationFrequency: DAY
    aggregations:
      - meterId: meter-1
        fieldCode: gb
        function: SUM
    groups: [{groupType: ACCOUNT}]
    destinations: [warehouse]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T10:00:00Z
"""


CRON = """\
    reuse: unchangedBills
    fullEvery: 3
    completeness: twoPasses
    deletedRows: OMIT
    changes: true
    exportFileFormat: PARQUET
    typed: true
    excludeColumns: {BILLS: [purchaseOrderNumber]}
    cronExpression: 0 8-18 * * MON-FRI
"""


@pytest.mark.parametrize(
    "exports",
    [
        WHOLE,
        GOOD.replace("    scheduleType: DAY\n    period: 1\n", CRON).replace("[BILLS]", "[BILLS, BILL_LINE_ITEMS]"),
        DESTINATION + USAGE,
    ],
)
def test_a_schedule_is_made_again_from_its_definition(exports: str) -> None:
    found = parse(exports, EXTERNAL_ID="id", WEBHOOK_URL=WEBHOOK)
    gone = found.model_copy(update={"schedules": ()})
    assert [gone.schedule(one.code, one.definition) for one in found.schedules] == [*found.schedules]


GOOD_USAGE = DESTINATION + USAGE
WRONG_USAGE = [
    ("YESTERDAY", "LAST_WEEK", 7, "schedule 'daily' has the timePeriod 'LAST_WEEK'; known are LAST_120_DAYS, LAST_12"),
    ("YESTERDAY", "YESTERDAYS", 7, "Did you mean 'YESTERDAY'?"),
    ("YESTERDAY", "[TODAY]", 7, "has a list as timePeriod; known are"),
    ("    timePeriod: YESTERDAY\n", "", 5, "has no 'timePeriod'; write it, such as timePeriod: YESTERDAY"),
    (
        "    timePeriod:",
        "    operationalDataTypes: ALL\n    timePeriod:",
        7,
        "which belongs to the sourceType OPERATION",
    ),
    ("[meter-1]", "[]", 8, "has an empty list as meterIds; write at least one of ids, or ALL"),
    ("[meter-1]", "meter-1", 8, "has the value 'meter-1' as meterIds; write a list of ids, or ALL"),
    ("[meter-1]", "[meter 1]", 8, "names the id 'meter 1'; write an id as m3ter shows it"),
    ("[meter-1]", "ALL\n    accountIds: [{a: b}]", 9, "has a mapping as id; write one text"),
    ("values: [EU]", "value: [EU]", 10, "has the unknown key 'value'; known are fieldCode, meterId, values."),
    ("values: [EU]", "values: []", 10, "has an empty list as values; write at least one of texts"),
    ("aggregationFrequency: DAY", "aggregationFrequency: YEAR", 11, "'YEAR'; write ORIGINAL or HOUR or DAY or WEEK or"),
    (
        "aggregationFrequency: DAY",
        "aggregationFrequency: ORIGINAL",
        11,
        "has groups and the aggregationFrequency 'ORIG",
    ),
    ("aggregationFrequency: DAY\n", "meterId: x\n", 11, "has the unknown key 'meterId'"),
    ("        fieldCode: gb\n", "", 13, "schedule 'daily' has no 'fieldCode'; write it, such as fieldCode: gb"),
    ("fieldCode: gb", "fieldCode: ''", 14, "has the fieldCode ''; write 1 to 255 characters"),
    ("SUM", "AVERAGE", 15, "has the function 'AVERAGE'; write SUM or MIN or MAX or COUNT or LATEST or MEAN or UNIQUE."),
    ("SUM", "UNIQUE", 15, "has the function 'UNIQUE' for a field of the type MEASURE; write SUM or MIN"),
    ("SUM", "SUM\n      - meterId: meter-1\n        fieldCode: gb\n        function: SUM", 12, "an aggregation twice"),
    ("SUM", "SUM\n      - gb", 16, "is the value 'gb'; write keys and values, such as meterId: <meter id>"),
    ("groupType: ACCOUNT", "groupType: DIMENSION", 16, "groupType DIMENSION, which takes meterId and fieldCode; write"),
    ("groupType: ACCOUNT", "groupType: TIME, frequency: WEEK", 11, "'DAY' and a group by another; write it once"),
    ("groupType: ACCOUNT", "groupType: TIME, frequency: DAY}, {groupType: TIME, frequency: HOUR", 11, "write it once"),
    (
        "- meterId: meter-1",
        "- meterId: meter-2",
        12,
        "has aggregations of the meter 'meter-2' and meterIds without it;",
    ),
    ("{meterId: meter-1", "{meterId: meter-2", 9, "has dimensionFilters of the meter 'meter-2'"),
    ("ACCOUNT", "DIMENSION, meterId: m, fieldCode: gb", 16, "has groups of the meter 'm'"),
    ("groupType: ACCOUNT", "groupType: TIME, frequency: QUARTER", 16, "has the frequency 'QUARTER'; write HOUR or DAY"),
    ("[warehouse]", "[warehous]", 17, "names the destination 'warehous'; known are warehouse."),
    ("period: 1", "period: 0", 19, "has the period '0'"),
]


def test_a_schedule_of_usage_data() -> None:
    (schedule,) = parse(GOOD_USAGE).schedules
    assert isinstance(schedule, UsageSchedule)
    assert (schedule.asset_names, schedule.is_raw, schedule.meter_ids) == (("usage_aggregated",), False, ("meter-1",))
    assert UsageSelection.model_validate(schedule.selection).aggregations == schedule.aggregations
    (again,) = Exports.model_validate(parse(GOOD_USAGE).model_dump()).schedules
    assert again == schedule


def test_what_a_usage_schedule_may_leave_out() -> None:
    start, end = USAGE.index("    meterIds"), USAGE.index("    destinations")
    (schedule,) = parse(DESTINATION + USAGE[:start] + USAGE[end:]).schedules
    assert isinstance(schedule, UsageSchedule)
    assert (schedule.asset_names, schedule.meter_ids, schedule.account_ids) == (("usage_raw",), (), ())
    assert schedule.selection == {"timePeriod": "YESTERDAY", "aggregationFrequency": "ORIGINAL"}


def test_a_group_by_time_gives_the_frequency() -> None:
    text = GOOD_USAGE.replace("    aggregationFrequency: DAY\n", "").replace("ACCOUNT", "TIME, frequency: WEEK")
    (schedule,) = parse(text).schedules
    assert isinstance(schedule, UsageSchedule)
    assert schedule.aggregation_frequency == "WEEK"


@pytest.mark.parametrize("time_period", TIME_PERIODS)
def test_every_time_period_of_the_api(time_period: str) -> None:
    (schedule,) = parse(GOOD_USAGE.replace("YESTERDAY", time_period)).schedules
    assert isinstance(schedule, UsageSchedule)
    assert schedule.time_period == time_period


@pytest.mark.parametrize(("old", "new", "line", "words"), WRONG_USAGE)
def test_a_wrong_usage_schedule_is_told_as_well(old: str, new: str, line: int, words: str) -> None:
    found = mistakes_in(GOOD_USAGE.replace(old, new, 1))
    assert any(mistake.startswith(f"exports.yaml:{line}: ") and words in mistake for mistake in found), found
    assert all(mistake.endswith((".", "?")) and "Input should" not in mistake for mistake in found)


def test_all_mistakes_of_a_usage_schedule_come_together() -> None:
    text = GOOD_USAGE.replace("YESTERDAY", "NOW").replace("SUM", "ALL").replace("period: 1", "period: 0")
    assert [mistake.split(": ")[0] for mistake in mistakes_in(text)] == [f"exports.yaml:{line}" for line in (7, 15, 19)]


def test_aggregated_usage_needs_aggregations() -> None:
    start, end = USAGE.index("    aggregations:"), USAGE.index("    destinations")
    (mistake,) = mistakes_in(DESTINATION + USAGE[:start] + USAGE[end:])
    assert "has the aggregationFrequency 'DAY' and no aggregations; write at least one, such as {meterId" in mistake
    (mistake,) = mistakes_in(
        GOOD_USAGE.replace("    aggregationFrequency: DAY\n", "").replace("[{groupType: ACCOUNT}]", "[]")
    )
    assert "has aggregations and no aggregationFrequency to aggregate over; write aggregationFrequency: HOUR" in mistake


@pytest.mark.parametrize(("old", "new", "line", "words"), WRONG)
def test_a_wrong_file_names_the_line_the_value_and_what_is_allowed(old: str, new: str, line: int, words: str) -> None:
    assert GOOD.count(old) >= 1
    found = mistakes_in(GOOD.replace(old, new, 1))
    assert any(mistake.startswith(f"exports.yaml:{line}: ") and words in mistake for mistake in found), found
    assert all(mistake.endswith((".", "?")) and "Input should" not in mistake for mistake in found)


def test_the_sentence_that_the_style_guide_asks_for() -> None:
    (mistake,) = mistakes_in(GOOD.replace("[warehouse]", "[warehous]"))
    assert (
        mistake == "exports.yaml:9: schedule 'nightly' names the destination 'warehous'; known are archive, warehouse."
    )


def test_all_mistakes_come_together_in_the_order_of_the_file() -> None:
    text = (
        GOOD.replace("acme-exports", "X")
        .replace("acme-archive", "${ARCHIVE}")
        .replace("[BILLS]", "[BILS, METER]")
        .replace("[warehouse]", "[warehous]")
        .replace("DAY", "WEEK")
        .replace("period: 1", "period: 0")
        .replace("10:00:00Z", "10:00:00")
    )
    found = mistakes_in(text)
    assert [mistake.split(": ")[0] for mistake in found] == [
        f"exports.yaml:{line}" for line in (3, 5, 8, 8, 9, 10, 11, 12)
    ]


def test_one_value_is_complained_about_once() -> None:
    (mistake,) = mistakes_in(GOOD.replace("acme-exports", "${BUCKET}"))
    assert "BUCKET" in mistake


def test_schedules_that_dagster_cannot_tell_apart() -> None:
    second = SCHEDULE.removeprefix("schedules:\n")
    text = GOOD.replace("nightly", "night-ly") + second.replace("nightly", "night_ly")
    assert mistakes_in(text) == (
        "exports.yaml:13: schedule 'night_ly' is called 'night_ly' in Dagster, as schedule 'night-ly' is; "
        "write another code.",
    )
    assert mistakes_in(GOOD + second) == (
        "exports.yaml:13: schedule 'nightly' has the code of an earlier schedule; write another code.",
    )


@pytest.mark.slow
@given(st.data())
@settings(max_examples=300, deadline=None)
def test_no_text_is_too_wrong_for_a_sentence(data: st.DataObject) -> None:
    """A file with a piece cut out and another put in is right, or wrong in words of our own."""
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(start + 40, len(GOOD))))
    piece = data.draw(st.one_of(st.text(max_size=8), st.sampled_from(PIECES)))
    mistakes: tuple[str, ...] = ()
    try:
        parse(GOOD[:start] + piece + GOOD[end:])
    except ConfigError as error:
        mistakes = error.mistakes
    assert all(re.match(r"exports\.yaml:\d+: ", mistake) for mistake in mistakes)


@pytest.mark.parametrize(
    ("key", "value"), [("endpointUrl", "https://user:hunter2@host"), ("externalId", "hunter2 with a blank")]
)
def test_a_wrong_secret_is_not_repeated(key: str, value: str) -> None:
    (mistake,) = mistakes_in(DESTINATION + f"    {key}: {value}\n")
    assert key in mistake
    assert "hunter2" not in mistake


@pytest.mark.parametrize(
    "written",
    [
        "    partitionOrder: ${SECRET}",
        "    endpointUrl: ${SECRET}/",
        "    prefix: /a//${SECRET}/",
        "    kmsKeyId: ${SECRET}",
        "    serverSideEncryption: pre${SECRET}post",
        "  - {code: '${SECRET}', bucketName: '_${SECRET}'}",
        "    region: [${SECRET}]",
        "schedules: ${SECRET}",
        "defaultDestinations: ['${SECRET}']",
        "owners: ['${SECRET}']",
        "notifications: {webhookUrl: 'https://a.example', graceHours: '${SECRET}'}",
    ],
)
@pytest.mark.parametrize("secret", ["hunter2 is long", "hunter2", "/hunter2/", "hun\\ter2'\n"])
def test_a_variable_in_a_wrong_place_is_not_repeated(written: str, secret: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(f"{DESTINATION}{written}\n", SECRET=secret)
    assert not re.search("hun.{0,4}ter2", str(raised.value))


def test_a_wrong_value_from_a_variable_is_shown_as_it_is_written() -> None:
    with pytest.raises(ConfigError) as raised:
        parse(GOOD.replace("period: 1", "period: ${PERIOD}"), PERIOD="0")
    assert str(raised.value).endswith("has the period '${PERIOD}'; write a whole number from 1 to 10000, such as 5.")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghi")
)


def test_aliases_cannot_fill_the_memory() -> None:
    assert len(BOMB) < 400
    with pytest.raises(ConfigError) as raised:
        parse(BOMB)
    assert re.fullmatch(
        r"exports\.yaml:\d: the file has more than 100,000 values; write less, or repeat less by aliases\.",
        str(raised.value),
    )


@pytest.mark.parametrize(
    "written",
    [
        " https://hunter2.example.com/",
        "\n  webhookUrl:https://chat.example.com/hunter2",
        "\n  webhookUrl: chat.example.com/hunter2",
        "\n  webhookUrl: https://chat.example.com/hunter2#a",
        "\n  webhookUrl: https://chat.example.com/hunter2 b",
        "\n  webhookUrl: https://user:hunter2@chat.example.com/",
        "\n  webhookUrl: https:///hunter2",
        "\n  webhookUrl: https://chat.example.com:99999/hunter2",
        "\n  webhookUrl: [https://chat.example.com/hunter2]",
        "\n  webhookUrl: {https://chat.example.com/: hunter2}",
    ],
)
def test_nor_is_a_webhook_address(written: str) -> None:
    (mistake,) = mistakes_in(f"{DESTINATION}notifications:{written}\n")
    assert "notifications" in mistake
    assert "hunter2" not in mistake


def test_a_webhook_address_is_shown_nowhere() -> None:
    exports = parse(WHOLE, EXTERNAL_ID="a-shared-id", WEBHOOK_URL=WEBHOOK)
    shown = f"{exports!r} {exports} {exports.model_dump()} {exports.model_dump_json()}"
    assert "hunter" not in shown
    assert exports.notifications
    assert exports.notifications.webhook_url.get_secret_value() == WEBHOOK
    assert Exports.model_validate(exports.model_dump()) == exports
    with pytest.raises(ValidationError) as raised:
        Notifications.model_validate({"webhook_url": "chat.example.com/hunter2"})
    assert "hunter2" not in str(raised.value) + repr(raised.value)


@pytest.mark.parametrize(
    "owner", ["team:finance", "data+m3ter@acme.co.uk", "team:", "team", "a@b", "@b.org", "a b@c.de"]
)
def test_an_owner_is_what_dagster_takes_for_one(owner: str) -> None:
    text = DESTINATION + f"owners: ['{owner}']\n"
    if is_valid_owner(owner):
        assert parse(text).owners == (owner,)
    else:
        assert mistakes_in(text)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"scheduleType": None}, "has no 'scheduleType'; write it, such as scheduleType: DAY"),
        ({"period": True}, "has the period True; write a whole number from 1 to 10000, such as 5"),
        ({"dtCreated": datetime(2024, 6, 1)}, "has the dtCreated '2024-06-01 00:00:00', which has no time zone; write"),
        ({"dtCreated": datetime(1999, 6, 1, tzinfo=UTC)}, "+00:00'; write a moment from 2000 to 2100"),
        ({"destinations": "a"}, "has the value 'a' as destinations; write a list of destination codes"),
        ({"destinations": [""]}, "names the code ''; write 1 to 80 characters"),
        ({"meterIds": ["a"]}, "has the unknown key 'meterIds'; known are changes, code,"),
    ],
)
def test_one_model_is_worded_as_the_whole_file_is(wrong: dict[str, Any], words: str) -> None:
    given = parse(GOOD).schedules[0].model_dump(by_alias=True) | wrong
    with pytest.raises(ValidationError) as raised:
        ExportSchedule.model_validate(given)
    (refusal,) = refusals(raised.value, ExportSchedule)
    assert words in refusal.words
    assert refusal.loc[:1] == tuple(wrong)


def test_an_error_survives_pickling() -> None:
    error = ConfigError("one.", "two.")
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == "one.\ntwo."


def test_the_file_beside_the_workspace_comes_first(tmp_path: Path) -> None:
    (tmp_path / "exports.yaml").write_text("\ufeff" + GOOD, encoding="utf-8")
    assert exports_path({}, folder=tmp_path) == tmp_path / "exports.yaml"
    assert load_exports({}, folder=tmp_path).destinations[0].code == "warehouse"


def test_no_other_folder_is_looked_at(tmp_path: Path) -> None:
    assert exports_path({}, folder=tmp_path) == tmp_path / "exports.yaml"


@pytest.mark.parametrize("name", ["other.yaml", "{folder}/other.yaml"])
def test_a_named_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "other.yaml").write_text(GOOD)
    environ = {"M3TER_EXPORTS": name.format(folder=tmp_path)}
    assert load_exports(environ, folder=tmp_path).schedules[0].code == "nightly"


def test_no_file_says_where_and_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_exports({"M3TER_EXPORTS": "none.yaml"}, folder=tmp_path)
    message = str(raised.value)
    assert message.startswith(f"there is no {tmp_path / 'none.yaml'}; write one")
    assert "M3TER_EXPORTS" in message
    assert parse(message.split("For example:\n\n")[1]).schedules
    assert parse(EXAMPLE).schedules


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "exports.yaml").write_bytes(b"a: b\nc: \xff\n")
    with pytest.raises(ConfigError, match=r"exports\.yaml:2: not UTF-8 text; save the file as UTF-8"):
        load_exports({}, folder=tmp_path)


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_exports({"M3TER_EXPORTS": str(tmp_path)})


def test_the_committed_file_is_right() -> None:
    environ = {"M3TER_EXPORTS": str(ROOT / "exports.yaml"), "M3TER_BUCKET": "acme"}
    assert load_exports(environ).destinations[0].bucket_name == "acme"


def test_the_committed_file_names_nobody_s_bucket() -> None:
    with pytest.raises(ConfigError, match=r"exports\.yaml:7: .* uses \$\{M3TER_BUCKET\}; set the environment variable"):
        load_exports({"M3TER_EXPORTS": str(ROOT / "exports.yaml")})


def test_settings() -> None:
    found = load_m3ter_settings(
        {**CREDENTIALS, "M3TER_BASE_URL": "http://127.0.0.1:8080/", "M3TER_REQUESTS_PER_SECOND": "0.5"}
    )
    assert found.api_key.get_secret_value() == "the-key"
    assert found.api_secret.get_secret_value() == "the-secret"
    assert found.org_id == "the-organization"
    assert found.base_url == "http://127.0.0.1:8080"
    assert found.requests_per_second == 0.5


def test_secrets_may_be_in_files(tmp_path: Path) -> None:
    secret, bucket = tmp_path / "secret", tmp_path / "bucket"
    secret.write_text("the-secret\n", encoding="utf-8")
    bucket.write_text("acme-exports", encoding="utf-8")
    environ = {name: value for name, value in CREDENTIALS.items() if name != "M3TER_API_SECRET"}
    environ |= {"M3TER_API_SECRET_FILE": str(secret), "M3TER_BUCKET_FILE": f" {bucket} "}
    assert load_m3ter_settings(environ).api_secret.get_secret_value() == "the-secret"
    (tmp_path / "exports.yaml").write_text("destinations: [{code: warehouse, bucketName: '${M3TER_BUCKET}'}]")
    assert load_exports(environ, folder=tmp_path).destinations[0].bucket_name == "acme-exports"


def test_files_of_secrets_that_are_wrong(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n", encoding="utf-8")
    (tmp_path / "bytes").write_bytes(b"\xff")
    (tmp_path / "key").write_text("another", encoding="utf-8")
    environ = {
        **CREDENTIALS,
        **{"M3TER_BASE_URL_FILE": "gone", "M3TER_API_KEY_FILE": str(tmp_path / "key")},
        **{"M3TER_PATIENCE_SECONDS_FILE": str(tmp_path / "empty"), "M3TER_EXPORTS_FILE": "gone", "OTHER_FILE": "gone"},
        "M3TER_REQUESTS_PER_SECOND_FILE": str(tmp_path / "bytes"),
    }
    with pytest.raises(ConfigError) as error:
        load_m3ter_settings(environ)
    assert error.value.mistakes == (
        "the environment has the M3TER_BASE_URL_FILE 'gone', which cannot be read: No such file or directory.",
        "the environment has M3TER_API_KEY and M3TER_API_KEY_FILE; keep one of them.",
        f"the environment has the M3TER_PATIENCE_SECONDS_FILE '{tmp_path}/empty', which is empty; write "
        "the value into it.",
        f"the environment has the M3TER_REQUESTS_PER_SECOND_FILE '{tmp_path}/bytes', which cannot be read: it is not "
        "UTF-8 text.",
    )


def test_settings_have_defaults() -> None:
    found = load_m3ter_settings({**CREDENTIALS, "M3TER_BASE_URL": " "})
    assert (found.base_url, found.requests_per_second) == ("https://api.m3ter.com", 40.0)


def test_no_secret_is_shown() -> None:
    found = load_m3ter_settings(CREDENTIALS)
    assert "the-secret" not in repr(found) + str(found) + found.model_dump_json()
    assert "the-key" not in repr(found)


def test_all_missing_settings_come_together() -> None:
    with pytest.raises(ConfigError) as raised:
        load_m3ter_settings({"M3TER_API_SECRET": "  ", "M3TER_BASE_URL": "m3ter", "M3TER_REQUESTS_PER_SECOND": "many"})
    lines = raised.value.mistakes
    assert [line.split()[0] for line in lines[:3]] == ["M3TER_API_KEY", "M3TER_API_SECRET", "M3TER_ORG_ID"]
    assert all("is not set; it is" in line and "Generate Access Key" in line for line in lines[:3])
    assert "the environment has the M3TER_BASE_URL 'm3ter'; write an address" in lines[3]
    assert "has the M3TER_REQUESTS_PER_SECOND 'many'; write a number above 0 and at most 50" in lines[4]


@pytest.mark.parametrize("pace", ["0", "-1", "nan", "inf", "51", "1e9", "forty"])
def test_a_pace_that_m3ter_does_not_answer(pace: str) -> None:
    with pytest.raises(ConfigError, match="above 0 and at most 50, which is what m3ter answers"):
        load_m3ter_settings({**CREDENTIALS, "M3TER_REQUESTS_PER_SECOND": pace})


@pytest.mark.parametrize("org_id", ["a/b", "a b", "..", "orgId=x"])
def test_an_organization_that_no_path_may_hold(org_id: str) -> None:
    with pytest.raises(ConfigError, match="the environment has the M3TER_ORG_ID"):
        load_m3ter_settings({**CREDENTIALS, "M3TER_ORG_ID": org_id})


PATIENCE = ("PATIENCE", "RATE_LIMIT_PATIENCE")
TIMEOUTS = ("CONNECT_TIMEOUT", "READ_TIMEOUT")


def test_limits_are_read_from_the_environment() -> None:
    environ = {f"M3TER_{name}_SECONDS": f"{number}.5" for number, name in enumerate((*PATIENCE, *TIMEOUTS))}
    found = load_m3ter_settings({**CREDENTIALS, **environ})
    assert (found.patience_seconds, found.rate_limit_patience_seconds) == (0.5, 1.5)
    assert (found.connect_timeout_seconds, found.read_timeout_seconds) == (2.5, 3.5)
    usual = load_m3ter_settings(CREDENTIALS)
    assert (usual.patience_seconds, usual.rate_limit_patience_seconds) == (900, 360)
    assert (usual.connect_timeout_seconds, usual.read_timeout_seconds) == (10, 60)


@pytest.mark.parametrize("name", [*PATIENCE, *TIMEOUTS])
@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "long"])
def test_a_time_that_nobody_can_wait(name: str, seconds: str) -> None:
    variable = f"M3TER_{name}_SECONDS"
    with pytest.raises(ConfigError, match=f"^the environment has the {variable} '{seconds}'; write a number of secon"):
        load_m3ter_settings({**CREDENTIALS, variable: seconds})


def test_no_patience_is_a_limit_and_no_timeout_is_none() -> None:
    assert load_m3ter_settings({**CREDENTIALS, "M3TER_PATIENCE_SECONDS": "0"}).patience_seconds == 0
    with pytest.raises(ConfigError, match="M3TER_READ_TIMEOUT_SECONDS '0'; write a number of seconds above 0"):
        load_m3ter_settings({**CREDENTIALS, "M3TER_READ_TIMEOUT_SECONDS": "0"})


@pytest.mark.parametrize("megabytes", ["-1", "1.5", "much", "²"])
def test_the_least_room_for_temporary_files_is_a_whole_number(megabytes: str) -> None:
    with pytest.raises(ConfigError, match=f"the M3TER_LEAST_FREE_MB '{megabytes}'; write a whole number of megabytes"):
        load_settings({"M3TER_LEAST_FREE_MB": megabytes})


def test_a_password_in_the_address_of_m3ter_is_not_repeated() -> None:
    with pytest.raises(ConfigError) as raised:
        load_m3ter_settings({**CREDENTIALS, "M3TER_BASE_URL": "https://user:hunter2@m3ter.example.com"})
    assert str(raised.value) == (
        "the environment has a user or password in M3TER_BASE_URL; write the address without them."
    )


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "127.9.9.9", "localhost:1", "[::1]:80"])
def test_m3ter_without_encryption_is_only_on_this_machine(host: str) -> None:
    assert load_m3ter_settings({**CREDENTIALS, "M3TER_BASE_URL": f"http://{host}"}).base_url == f"http://{host}"
    assert load_m3ter_settings({**CREDENTIALS, "M3TER_BASE_URL": "https://10.0.0.1"})


@pytest.mark.parametrize("host", ["api.m3ter.com", "10.0.0.1:80", "0.0.0.0", "localhost.example.com", "[::2]"])
def test_a_secret_is_not_sent_in_the_open(host: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_m3ter_settings({**CREDENTIALS, "M3TER_BASE_URL": f"HTTP://{host}/"})
    assert str(raised.value) == (
        f"the environment has the M3TER_BASE_URL 'HTTP://{host}'; write https://, since over http:// anyone on the way "
        "could read the secret (it is for this machine alone)."
    )


def test_settings_carry_the_connection_or_why_there_is_none() -> None:
    found = load_settings({**CREDENTIALS, "M3TER_EXECUTOR": "multiprocess", "M3TER_LEAST_FREE_MB": "50"})
    assert (found.connection(), found.executor) == (load_m3ter_settings(CREDENTIALS), "multiprocess")
    assert found.least_free == 50_000_000
    without = load_settings({})
    assert (without.executor, without.least_free) == ("in_process", 200_000_000)
    with pytest.raises(ConfigError, match="M3TER_API_KEY is not set"):
        without.connection()


def test_the_pace_is_kept_in_the_home_of_dagster_or_in_a_folder_of_the_user(tmp_path: Path) -> None:
    assert load_settings({"DAGSTER_HOME": str(tmp_path)}).pace_folder == tmp_path / "m3ter-pace"
    assert load_settings({}).pace_folder == Path(tempfile.gettempdir()) / f"m3ter-pace-{os.getuid()}"


@pytest.mark.parametrize("environ", [CREDENTIALS, {}])
def test_settings_travel_to_other_processes(environ: dict[str, str]) -> None:
    found = pickle.loads(pickle.dumps(load_settings(environ)))
    assert isinstance(found, Settings)
    assert isinstance(found.organization, M3terSettings if environ else ConfigError)


def test_the_environment_of_the_process_is_not_asked_behind_the_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M3TER_BASE_URL", "https://elsewhere.example.com")
    monkeypatch.setenv("M3TER_ORG_ID", "elsewhere")
    monkeypatch.setenv("M3TER_EXECUTOR", "multiprocess")
    assert M3terSettings(api_key="k", api_secret="s", org_id="o").base_url == "https://api.m3ter.com"
    assert load_m3ter_settings(CREDENTIALS).base_url == "https://api.m3ter.com"
    assert load_settings(CREDENTIALS).executor == "in_process"
    with pytest.raises(ConfigError, match="M3TER_ORG_ID is not set"):
        load_m3ter_settings({**CREDENTIALS, "M3TER_ORG_ID": ""})


def test_the_executor() -> None:
    assert executor({}) == "in_process"
    assert executor({"M3TER_EXECUTOR": "multiprocess"}) == "multiprocess"
    with pytest.raises(ConfigError, match="M3TER_EXECUTOR 'threads'; write in_process, multiprocess, celery or k8s"):
        executor({"M3TER_EXECUTOR": "threads"})


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("celery", "dagster_celery", "celery"), ("k8s", "dagster_k8s", "kubernetes")]
)
def test_an_executor_of_an_extra_says_which(
    monkeypatch: pytest.MonkeyPatch, name: str, module: str, extra: str
) -> None:
    assert executor({"M3TER_EXECUTOR": name}) == name
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=f"'{name}', which needs the package {module}.*m3ter-dagster.{extra}.'"):
        executor({"M3TER_EXECUTOR": name})


def test_settings_made_in_code() -> None:
    found = M3terSettings(api_key="k", api_secret="s", org_id="o")
    assert found.requests_per_second == 40


class EditorLoader(yaml.SafeLoader):
    """YAML as editors read it: numbers are numbers, moments are text."""


EditorLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def in_editor(text: str) -> Any:
    return yaml.load(text, EditorLoader)


def test_the_committed_schema_is_current() -> None:
    committed = json.loads((ROOT / "docs" / "exports.schema.json").read_text(encoding="utf-8"))
    assert committed == exports_json_schema(), "write it: m3ter-dagster schema > docs/exports.schema.json"


@pytest.mark.parametrize(
    "text",
    [
        (ROOT / "exports.yaml").read_text(encoding="utf-8"),
        EXAMPLE,
        GOOD,
        GOOD_USAGE,
        GOOD.replace("[BILLS]", "ALL\n    reuse: unchangedBills\n    fullEvery: 2"),
        GOOD_USAGE.replace("[meter-1]", "ALL"),
        GOOD + "keepHistory: 90d\n",
        WHOLE.replace("007", "agent"),
        GOOD.replace("period: 1", "period: ${PERIOD}").replace("acme-exports", "acme-${STAGE}"),
    ],
)
def test_right_files_are_right_in_an_editor(text: str) -> None:
    jsonschema.Draft7Validator.check_schema(exports_json_schema())
    jsonschema.Draft7Validator(exports_json_schema()).validate(in_editor(text))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("acme-exports", "Acme"),
        ("acme-exports", "ab"),
        ("acme-exports", "a..b"),
        ("acme-exports", "x" * 64),
        ("00Z\n", "00Z\npreviews: 1\n"),
        ("00Z\n", "00Z\nkeepHistory: 90 days\n"),
        ("00Z\n", "00Z\nusageRawByDay: {}\n"),
        ("[BILLS]", "[BILS]"),
        ("[warehouse]", "[]"),
        ("DAY", "MINUTE"),
        ("period: 1", "period: 0"),
        ("    period: 1\n", ""),
        ("bucketName", "bucket"),
        ("00Z\n", "00Z\nowners: [finance]\n"),
        ("00Z\n", "00Z\nnotifications: {}\n"),
        ("00Z\n", NOTIFIED.replace("https", "ftp")),
        ("00Z\n", NOTIFIED + "  onSuccess: 1\n"),
        ("00Z\n", NOTIFIED + "  graceHours: 0\n"),
        ("00Z\n", NOTIFIED + "  channel: a\n"),
    ],
)
def test_wrong_files_are_wrong_in_an_editor(old: str, new: str) -> None:
    validator = jsonschema.Draft7Validator(exports_json_schema())
    assert not validator.is_valid(in_editor(GOOD.replace(old, new, 1)))


def test_an_editor_gives_the_same_advice_as_the_message() -> None:
    (mistake,) = mistakes_in(GOOD.replace("acme-exports", "abc\n    region: eu west"))
    region, variable = exports_json_schema()["$defs"]["S3Destination"]["properties"]["region"]["anyOf"]
    assert mistake.endswith(f"; {region['errorMessage']}.")
    assert variable == {"$ref": "#/$defs/Variable"}


def test_the_schema_describes_each_field() -> None:
    schema = exports_json_schema()
    fields = [*schema["properties"].values()]
    for model in schema["$defs"].values():
        fields += model.get("properties", {}).values()
    assert all(field["description"].endswith(".") for field in fields)
