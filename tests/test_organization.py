"""One Organization reads entities and measurements by one client: each list once per process, with one token."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from processes import PRELOADED

from m3ter_dagster.assets.usage_config import RawConfig, selection_of, window_in
from m3ter_dagster.config import load_settings
from m3ter_dagster.config.usage import RAW
from m3ter_dagster.definitions import definitions
from m3ter_dagster.history.log import MANIFEST, deliveries_of
from m3ter_dagster.model.entities import entities
from m3ter_dagster.reading.past import Past
from m3ter_dagster.resources.organization import Organization
from m3ter_sandbox import Sandbox

MARCH_31 = {"startDate": "2024-03-31", "endDate": "2024-04-01"}
ACCOUNTS = 6


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(ACCOUNTS, requests_per_second=None) as sandbox:
        yield sandbox


@pytest.fixture
def environment(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the variables that name the sandbox are set to; temporary files are the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    settings = {"M3TER_REQUESTS_PER_SECOND": "50", "M3TER_JOB_PAUSE_SECONDS": "0.01"}
    given = {**sandbox.environment, **settings}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    sandbox.api.requests.clear()
    return given


def export(instance: dg.DagsterInstance, *names: str, **configs: Mapping[str, Any]) -> dg.ExecuteInProcessResult:
    """The assets in one run of this process; `configs` are theirs."""
    job = definitions().resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(name) for name in names],
        run_config={"ops": {name: {"config": dict(config)} for name, config in configs.items()}},
        raise_on_error=False,
    )


def asked(sandbox: Sandbox) -> Counter[str]:
    """How often each list was begun, and how often a token was asked for."""
    found = [one for one in sandbox.api.requests if "nextToken=" not in one.query]
    return Counter(one.path.rsplit("/", 1)[-1] for one in found)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("names", [("meter",), ("meter", "account"), ("meter", "account", "account_plan")], ids=str)
def test_entities_and_measurements_share_each_list_and_the_token(
    sandbox: Sandbox, instance: dg.DagsterInstance, names: tuple[str, ...]
) -> None:
    result = export(instance, *names, RAW, usage_raw=MARCH_31)
    assert result.success
    assert set(deliveries_of(instance, result.run_id)) == {*names, RAW}
    once = ("token", "meters", "accounts")
    counts = asked(sandbox)
    assert {name: counts[name] for name in once} == dict.fromkeys(once, 1)
    assert counts["accountplans"] == (ACCOUNTS if "account_plan" in names else 0)


@pytest.mark.usefixtures("environment")
def test_a_run_that_measures_first_knows_the_exports_before_it_as_well() -> None:
    found: list[Past] = []

    def find_past() -> Past:
        found.append(Past())
        return found[-1]

    config = RawConfig(**MARCH_31)
    organization, window = Organization(settings=load_settings()), window_in(config, datetime.now(UTC))
    steps, selection = {RAW, "meter"}, selection_of(config)
    for _ in range(2):
        organization.measure(RAW, selection, window, steps=steps, tell=lambda _: None, find_past=find_past)
    assert organization.read(entities()["meter"], steps=steps, waiting=lambda _: None).completeness
    assert len(found) == 1
    organization.teardown_after_execution(dg.build_init_resource_context())


@pytest.mark.usefixtures("environment")
def test_what_is_not_chosen_is_not_read(sandbox: Sandbox, instance: dg.DagsterInstance) -> None:
    assert export(instance, "product").success
    assert asked(sandbox) == {"token": 1, "products": 1}


@pytest.mark.usefixtures("environment")
def test_a_run_keeps_its_pace_in_the_home_of_dagster(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    assert export(instance, "product").success
    assert len(list((tmp_path / "dagster" / "m3ter-pace").iterdir())) == 1


@pytest.mark.usefixtures("environment")
def test_a_run_says_what_it_has_asked_m3ter(sandbox: Sandbox, instance: dg.DagsterInstance) -> None:
    result = export(instance, "product", MANIFEST)
    (materialized,) = result.asset_materializations_for_node(MANIFEST)
    counts = materialized.metadata["requests to m3ter"].value
    assert isinstance(counts, dict)
    assert (counts["requests"], counts["tokens"], counts["too_many"]) == (len(sandbox.api.requests), 1, 0)
    (said,) = [one for one in instance.all_logs(result.run_id) if one.user_message.startswith("m3ter was asked")]
    assert f"asked {len(sandbox.api.requests)} times, 1 of them for a token" in said.user_message


@pytest.mark.usefixtures("environment")
def test_after_the_run_nothing_is_left_in_the_temporary_folder(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    assert export(instance, "meter", RAW, usage_raw=MARCH_31).success
    assert [path.name for path in tmp_path.iterdir()] == ["dagster"]


@pytest.mark.usefixtures("environment")
def test_a_run_without_credentials_says_which_variables_are_missing(
    sandbox: Sandbox, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("M3TER_API_KEY", "M3TER_ORG_ID"):
        monkeypatch.delenv(name)
    result = export(instance, "meter", RAW, MANIFEST, usage_raw=MARCH_31)
    assert not result.success
    where = "(all three are shown in the m3ter Console under Settings > Access > Service Users, Generate Access Key)."
    words = (
        f"M3TER_API_KEY is not set; it is the access key id of a m3ter service user {where}\n"
        f"M3TER_ORG_ID is not set; it is the id of your m3ter Organization {where}"
    )
    failures = {one.step_key: one.step_failure_data.user_failure_data for one in result.get_step_failure_events()}
    assert {name: found.description if found else None for name, found in failures.items()} == {
        "meter": words,
        RAW: f"{RAW} could not be read: {words}",
    }
    assert asked(sandbox) == {}


@pytest.fixture(scope="module")
def fork_server() -> None:
    """Started before there is a temporary folder, in which its socket would be, of a test's own."""
    forkserver.ensure_running()


@pytest.mark.slow
@pytest.mark.usefixtures("fork_server")
def test_a_project_with_a_process_per_step_reads_each_list_once_per_step_that_needs_it(
    sandbox: Sandbox,
    environment: dict[str, str],
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "temporary").mkdir()
    given = {**environment, "DAGSTER_HOME": instance.root_directory, "TMPDIR": str(tmp_path / "temporary")}
    monkeypatch.setenv("TMPDIR", given["TMPDIR"])
    names = ("account", "account_plan")
    forked = {"forkserver": {"preload_modules": PRELOADED}}
    job = dg.build_reconstructable_job(
        "foreign_project", "foreign_job", (), given, reconstructor_working_directory=str(Path(__file__).parent)
    )
    with dg.execute_job(
        job,
        instance,
        asset_selection=[dg.AssetKey(name) for name in names],
        run_config={"execution": {"config": {"multiprocess": {"start_method": forked}}}},
        raise_on_error=True,
    ) as result:
        assert result.success
    assert list((tmp_path / "temporary").glob("m3ter-*")) == []
    delivered = deliveries_of(instance, result.run_id)
    assert set(delivered) == set(names)
    assert delivered["account"].rows == ACCOUNTS
    assert asked(sandbox) == {
        "token": len(names),  # each in a process of its own
        "accounts": 2,  # account, and account_plan that asks for each account's
        "accountplans": ACCOUNTS,
    }
