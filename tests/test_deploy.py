"""What deploy/ has is right as far as it can be tried without Docker and Kubernetes: by schema, and in real Dagster."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
import yaml
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner, Result
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster_k8s import K8sRunLauncher
from dagster_k8s.job import construct_dagster_k8s_job
from kubernetes.client import ApiClient
from postgres import new_database

from m3ter_dagster.cli import main
from m3ter_dagster.config.environment import load_m3ter_settings
from m3ter_sandbox import SandboxApi

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "docker-compose.yaml").read_text())
HELM = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text())
(LOCATION,) = HELM["dagster-user-deployments"]["deployments"]
VERSION = "1.37"
"""Of Kubernetes."""
NOT_ROOT = {"runAsNonRoot": True, "runAsUser": 10001}
READ_ONLY = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False}


def test_the_dockerfile_is_one_that_hadolint_takes() -> None:
    program = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([program, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


def test_the_context_of_the_image_is_what_the_dockerfile_copies() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    copied = {line.split()[1] for line in lines if line.startswith("COPY ") and "--from" not in line}
    first, *allowed = [one for one in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if "#" not in one]
    assert first == "*"
    assert {one.removeprefix("!") for one in allowed} == copied


def test_the_compose_file_fits_its_schema() -> None:
    command = ["--builtin-schema", "vendor.compose-spec", str(DEPLOY / "docker-compose.yaml")]
    checked = CliRunner().invoke(check_jsonschema, command)
    assert checked.exit_code == 0, checked.output


def test_the_files_of_the_compose_file_are_there_or_named_in_its_readme() -> None:
    assert all((DEPLOY / one["file"]).is_file() for one in COMPOSE["configs"].values())
    readme = (DEPLOY / "README.md").read_text()
    assert all(one["file"] in readme for one in COMPOSE["secrets"].values())


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_no_container_is_root_or_writes_elsewhere_than_to_its_volumes(name: str) -> None:
    service = COMPOSE["services"][name]
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service.get("user", "10001:10001") != "root"
    assert "healthcheck" in service or "build" in service  # the image has one
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.parametrize(
    ("environment", "secrets"),
    [
        (COMPOSE["services"]["code-location"]["environment"], COMPOSE["secrets"]),
        (LOCATION["env"], ("m3ter/api-key", "m3ter/api-secret")),
    ],
    ids=["compose", "helm"],
)
def test_the_secrets_of_m3ter_are_read_from_the_files_that_are_mounted(
    environment: Mapping[str, str], secrets: tuple[str, ...], tmp_path: Path
) -> None:
    for secret in secrets:
        (tmp_path / secret).parent.mkdir(exist_ok=True)
        (tmp_path / secret).write_text(f"content of {secret}\n")
    mounted = {name: value.replace("/run/secrets", str(tmp_path)) for name, value in environment.items()}
    settings = load_m3ter_settings({**mounted, "M3TER_ORG_ID": "org-1"})
    assert settings.api_key.get_secret_value().replace("_", "-").endswith("api-key")
    assert settings.api_secret.get_secret_value().replace("_", "-").endswith("api-secret")


def test_the_records_in_postgresql_are_the_only_difference_to_the_instance_of_a_terminal() -> None:
    settings = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    assert settings.pop("storage")
    assert settings == yaml.safe_load((ROOT / "dagster.yaml").read_text())


# PostgreSQL


PRODUCT = {"id": "product-1", "version": 1, "name": "Product", "dtCreated": "2026-01-01T00:00:00.000Z"}
METER = {"id": "meter-1", "version": 1, "name": "Meter", "code": "m", "dtCreated": "2026-01-01T00:00:00.000Z"}


@pytest.fixture
def api() -> Iterator[SandboxApi]:
    records = [("product", {**PRODUCT}), ("meter", {**METER, "version": "one"})]
    with SandboxApi(records, requests_per_second=None) as api:
        yield api


@pytest.fixture
def folder(api: SandboxApi, postgres: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of the only destination, beside an exports.yaml and a DAGSTER_HOME with the settings of deploy/."""
    folder, home = tmp_path / "exports", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    shutil.copy(DEPLOY / "dagster.yaml", home)
    destination = {"code": "folder", "destinationType": "LOCAL", "path": str(folder)}
    (tmp_path / "exports.yaml").write_text(json.dumps({"destinations": [destination]}))
    environment = {"DAGSTER_HOME": str(home), "DAGSTER_POSTGRES_URL": new_database(postgres)}
    for name, value in {**api.environment, **environment, "M3TER_EXPORTS": str(tmp_path / "exports.yaml")}.items():
        monkeypatch.setenv(name, value)
    return folder


def run(*command: str) -> Result:
    return CliRunner().invoke(main, command, catch_exceptions=False)


def jobs() -> list[Any]:
    return json.loads(run("jobs", "--json").stdout)


@pytest.mark.slow
def test_with_records_in_postgresql_an_export_fails_is_told_of_and_is_completed(api: SandboxApi, folder: Path) -> None:
    assert run("export", "--entities", "product,meter").exit_code == 1
    (job,) = jobs()
    assert (job["status"], job["delivered"], job["failed"]) == ("FAILED", ["product"], ["meter"])
    assert not list(folder.rglob("*_manifest.json"))

    api.records.replace("meter", METER)
    resumed = run("export", "--resume", job["id"])
    assert resumed.exit_code == 0, resumed.output
    (job,) = jobs()
    assert (job["status"], job["rows"]) == ("SUCCEEDED", 2)
    assert list(folder.rglob(f"{job['id']}_manifest.json"))

    again = run("export", "--entities", "product,meter", "--json")
    assert again.exit_code == 0, again.output
    (second,) = folder.rglob(f"{json.loads(again.stdout)['runId']}_manifest.json")
    previous = {one["m3ter:difference"]["previous"] for one in json.loads(second.read_text())["resources"]}
    assert previous == {job["id"]}
    assert len(jobs()) == 2
    assert not list((folder.parent / "home").rglob("*.db"))


# Kubernetes


KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "one",
    "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
    "clusters": [{"name": "one", "cluster": {"server": "https://127.0.0.1:1"}}],
    "users": [{"name": "one", "user": {}}],
}
SNAKE_CASE = {
    "imagePullPolicy": "image_pull_policy",
    "runK8sConfig": "run_k8s_config",
    "containerConfig": "container_config",
    "podSpecConfig": "pod_spec_config",
    "jobSpecConfig": "job_spec_config",
}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """With the run coordinator and the run launcher of the values, as the chart writes them into dagster.yaml."""
    (tmp_path / "kubeconfig").write_text(json.dumps(KUBECONFIG))
    coordinator = HELM["dagsterDaemon"]["runCoordinator"]
    given = coordinator["config"]["queuedRunCoordinator"]
    assert set(given) == {"maxConcurrentRuns"}
    launcher = {
        **renamed(HELM["runLauncher"]["config"]["k8sRunLauncher"]),
        **{"load_incluster_config": False, "kubeconfig_file": str(tmp_path / "kubeconfig")},
        **{
            "service_account_name": "dagster",
            "instance_config_map": "dagster-instance",
            "dagster_home": HELM["global"]["dagsterHome"],
        },
        **{"postgres_password_secret": HELM["global"]["postgresqlSecretName"], "job_namespace": "exports"},
    }
    settings = {
        "telemetry": HELM["telemetry"],
        "run_retries": HELM["dagsterDaemon"]["runRetries"],
        "run_monitoring": {"enabled": True, "start_timeout_seconds": 600},
        "run_coordinator": {
            **{"module": "dagster.core.run_coordinator", "class": coordinator["type"]},
            **{"config": {"max_concurrent_runs": given["maxConcurrentRuns"]}},
        },
        "run_launcher": {"module": "dagster_k8s", "class": HELM["runLauncher"]["type"], "config": launcher},
    }
    (tmp_path / "dagster.yaml").write_text(json.dumps(settings))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        yield instance


def renamed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of the words that the chart itself renames, those of the values; what is Kubernetes' own stays."""
    return {
        SNAKE_CASE.get(name, name): renamed(value) if name == "runK8sConfig" else value
        for name, value in values.items()
    }


def test_a_run_s_pod_is_one_of_kubernetes_with_all_that_an_export_needs(instance: dg.DagsterInstance) -> None:
    launcher = instance.run_launcher
    assert isinstance(launcher, K8sRunLauncher)
    context = {
        "env": [{"name": name, "value": value} for name, value in LOCATION["env"].items()],
        **{"volumes": LOCATION["volumes"], "volume_mounts": LOCATION["volumeMounts"]},
    }
    repository = RepositoryPythonOrigin(
        sys.executable,
        ModuleCodePointer("m3ter_dagster.definitions", "definitions"),
        container_image="image",
        container_context={"k8s": context},
    )
    run = dg.DagsterRun(job_name="export", job_code_origin=JobPythonOrigin("export", repository))
    found = launcher.get_container_context_for_run(run)
    config = found.get_k8s_job_config(job_image="image", run_launcher=launcher)
    job = construct_dagster_k8s_job(config, ["dagster"], "run", user_defined_k8s_config=found.run_k8s_config)
    kubernetes_validate.validate(ApiClient().sanitize_for_serialization(job), VERSION, strict=True)
    pod = job.spec.template.spec
    assert (pod.security_context.run_as_non_root, pod.security_context.run_as_user) == (True, 10001)
    (container,) = pod.containers
    assert container.security_context.read_only_root_filesystem
    assert not container.security_context.allow_privilege_escalation
    assert LOCATION["env"].keys() <= {one.name for one in container.env}
    assert {one["mountPath"] for one in LOCATION["volumeMounts"]} <= {one.mount_path for one in container.volume_mounts}


@pytest.mark.parametrize(
    "values", [HELM["dagsterWebserver"], HELM["dagsterDaemon"], LOCATION], ids=["webserver", "daemon", "code location"]
)
def test_the_other_pods_are_hardened_as_well(values: Mapping[str, Any]) -> None:
    container = {
        **{"name": "dagster", "image": f"{values['image']['repository']}:{values['image']['tag']}"},
        **{"imagePullPolicy": values["image"]["pullPolicy"], "securityContext": values["securityContext"]},
        "volumeMounts": values["volumeMounts"],
    }
    pod = {"securityContext": values["podSecurityContext"], "volumes": values["volumes"], "containers": [container]}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "dagster"}, "spec": pod}
    kubernetes_validate.validate(manifest, VERSION, strict=True)
    assert values["podSecurityContext"].items() >= NOT_ROOT.items()
    assert values["securityContext"].items() >= READ_ONLY.items()
    assert {one["name"] for one in values["volumeMounts"]} == {one["name"] for one in values["volumes"]}


def test_the_chart_is_told_of_the_driver_that_exports_need() -> None:
    assert HELM["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"


# systemd


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
def test_the_units_are_ones_that_systemd_takes(tmp_path: Path) -> None:
    here = str(Path(sys.executable).parent)
    units = sorted((DEPLOY / "systemd").iterdir())
    for unit in units:
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/m3ter-dagster/bin", here))
    command = ["systemd-analyze", "verify", "--man=no", *(tmp_path / unit.name for unit in units)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    assert (found.returncode, found.stderr) == (0, "")
    assert len(units) == 2
