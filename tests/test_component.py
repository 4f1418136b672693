"""The component, as `dg` scaffolds, checks and launches it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from dagster.components.testing.test_cases import TestTranslation
from dagster.components.testing.utils import DefsFolderSandbox, create_defs_folder_sandbox
from dagster_dg_cli.cli import cli
from processes import PROJECT
from pydantic import ValidationError

from m3ter_dagster import M3terAsset, M3terExportComponent
from m3ter_dagster.config import new_exports_yaml
from m3ter_dagster.definitions import definitions
from m3ter_dagster.history.log import MANIFEST
from m3ter_dagster.model.entities import operational_entities
from m3ter_sandbox import Sandbox

# Of Dagster's own components.
pytestmark = pytest.mark.filterwarnings(
    "ignore::dagster.BetaWarning",
    "ignore:Accessing `{{automation_condition:DeprecationWarning",
    "ignore:Property `ScheduleDefinition.environment_vars` is deprecated:DeprecationWarning",
    "ignore:`parse_obj_as`:pydantic.warnings.PydanticDeprecatedSince20",
)

TYPE = "m3ter_dagster.M3terExportComponent"
EXPORTS = "destinations: [{code: folder, destinationType: LOCAL, path: /tmp}]\n"
SCHEDULES = """\
schedules:
  - code: few
    operationalDataTypes: [ACCOUNTS, ACCOUNT_PLANS, METERS]
    destinations: [warehouse]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T10:00:00Z
"""
PYPROJECT = """\
[project]
name = "acme-data"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "acme_data"

[tool.dg.cli]
suppress_warnings = ["project_and_activated_venv_mismatch"]
"""
DEFINITIONS = """\
from pathlib import Path

import dagster as dg


@dg.definitions
def defs():
    components = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(components, dg.Definitions(executor=dg.in_process_executor))
"""


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("M3TER_", "DAGSTER_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def folder() -> Iterator[DefsFolderSandbox]:
    with create_defs_folder_sandbox() as folder:
        yield folder


def built(
    folder: DefsFolderSandbox, component: type[M3terExportComponent] = M3terExportComponent, **attributes: Any
) -> dg.Definitions:
    contents = {"type": f"{component.__module__}.{component.__name__}", "attributes": attributes}
    path = folder.scaffold_component(component, "billing", defs_yaml_contents=contents)
    (path / "exports.yaml").write_text(EXPORTS)
    with folder.load_component_and_build_defs(path) as (_, definitions):
        return definitions


class TestTranslationOfExports(TestTranslation):
    """Dagster's own cases."""

    def test_translation(
        self, folder: DefsFolderSandbox, attributes: Mapping[str, Any], assertion: Any, key_modifier: Any
    ) -> None:
        key = dg.AssetKey(["billing", "bill"])
        found = built(folder, prefix="billing", translation=attributes)
        key = key_modifier(key) if key_modifier else key
        assert assertion(found.get_assets_def(key).get_asset_spec(key))


def test_a_translation_may_name_the_asset_and_its_entity(folder: DefsFolderSandbox) -> None:
    title = "{{ asset.entity.title if asset.entity else asset.name }}"
    found = built(folder, translation={"key": "warehouse/m3ter_{{ asset.name }}", "description": title})
    specs = {one.key.to_user_string(): one.description for one in found.resolve_all_asset_specs()}
    assert specs["warehouse/m3ter_bill_line_item"] == "Bill line item"
    assert specs["warehouse/m3ter_usage_raw"] == "usage_raw"
    assert "m3ter/bill_line_item" in specs
    everything = found.resolve_job_def("export").asset_layer.executable_asset_keys
    assert everything == {dg.AssetKey(["warehouse", f"m3ter_{one}"]) for one in (*operational_entities(), MANIFEST)}


def test_the_defs_yaml_of_the_documentation_is_one(folder: DefsFolderSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("M3TER_API_KEY", "M3TER_API_SECRET", "M3TER_ORG_ID"):
        monkeypatch.setenv(name, "x")
    (text,) = re.findall("```yaml\n(type: .*?)```", (PROJECT / "docs" / "embedding.md").read_text(), re.DOTALL)
    spec = (
        built(folder, **yaml.safe_load(text)["attributes"]).get_assets_def(["warehouse", "m3ter_bill"]).get_asset_spec()
    )
    assert (spec.group_name, spec.owners, spec.description) == ("billing", ["team:finance"], "Bill")
    assert spec.tags["domain"] == "revenue"


class Owned(M3terExportComponent):
    """A host's own."""

    def get_asset_spec(self, asset: M3terAsset) -> dg.AssetSpec:
        return super().get_asset_spec(asset).replace_attributes(owners=[f"team:{asset.name}"])


def test_a_subclass_says_what_an_asset_is(folder: DefsFolderSandbox) -> None:
    found = built(folder, Owned, translation={"group_name": "finance"})
    spec = found.get_assets_def("bill").get_asset_spec()
    assert (spec.owners, spec.group_name) == (["team:bill"], "finance")


def test_settings_stand_instead_of_the_environment(folder: DefsFolderSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = folder.project_root / "secret"
    secret.write_text("of a file")
    monkeypatch.setenv("M3TER_API_KEY", "of the environment")
    monkeypatch.setenv("M3TER_API_SECRET_FILE", str(secret))
    monkeypatch.setenv("M3TER_ORG_ID", "org-1")
    monkeypatch.setenv("EU_SECRET", "of defs.yaml")
    settings = {"api_secret": "{{ env.EU_SECRET }}", "requests_per_second": 7, "executor": "multiprocess"}
    found = built(folder, settings=settings)
    connection = (found.resources or {})["organization"].settings.connection()
    assert (connection.api_key.get_secret_value(), connection.org_id) == ("of the environment", "org-1")
    assert (connection.api_secret.get_secret_value(), connection.requests_per_second) == ("of defs.yaml", 7)
    component = M3terExportComponent.resolve_from_dict({"settings": settings})
    assert "of defs.yaml" not in repr(component)


def test_a_prefix_that_names_could_not_have_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"prefix at .*\n +String should match pattern"):
        M3terExportComponent.resolve_from_yaml("prefix: bill-ing")


@pytest.mark.parametrize("kept", [True, False])
def test_scaffolding_keeps_an_exports_yaml_that_is_there(folder: DefsFolderSandbox, *, kept: bool) -> None:
    path = folder.defs_folder_path / "my-billing"
    path.mkdir()
    if kept:
        (path / "exports.yaml").write_text(EXPORTS)
    folder.scaffold_component(M3terExportComponent, "my-billing")
    written = new_exports_yaml()
    assert {one.name for one in path.iterdir()} == {"defs.yaml", *written}
    assert (path / "exports.yaml").read_text() == (EXPORTS if kept else written["exports.yaml"])
    attributes = yaml.safe_load((path / "defs.yaml").read_text())["attributes"]
    assert attributes == {"exports": "exports.yaml", "prefix": "my_billing"}


def test_the_package_is_imported_without_dagster_and_the_component_without_dg() -> None:
    program = """if True:
        import sys
        import m3ter_dagster
        assert "dagster" not in sys.modules
        m3ter_dagster.M3terExportComponent
        assert not [name for name in sys.modules if name.startswith("dagster_dg")]
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def dg_says(*words: str) -> str:
    """What `dg words...` prints in the current folder; in this process, for which it would need seconds to start."""
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.slow
@pytest.mark.usefixtures("no_aws_settings")
def test_in_a_project_of_dg_it_is_scaffolded_checked_and_delivers_what_plain_definitions_do(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "acme" / "src" / "acme_data"
    (package / "defs").mkdir(parents=True)
    (tmp_path / "acme" / "pyproject.toml").write_text(PYPROJECT)
    (package / "definitions.py").write_text(DEFINITIONS)
    for name in ("__init__.py", "defs/__init__.py"):
        (package / name).touch()
    monkeypatch.chdir(tmp_path / "acme")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("DAGSTER_HOME", instance.root_directory)

    assert TYPE in dg_says("list", "components", "--package", "m3ter_dagster")
    dg_says("scaffold", "defs", TYPE, "billing")
    billing = package / "defs" / "billing"
    assert {one.name for one in billing.iterdir()} == {"defs.yaml", "exports.yaml", "exports.schema.json"}
    defs = yaml.safe_load((billing / "defs.yaml").read_text())
    assert defs["type"] == TYPE
    defs["attributes"]["translation"] = {"key": "warehouse/m3ter_{{ asset.name }}"}
    (billing / "defs.yaml").write_text(yaml.safe_dump(defs))
    assert "YAML validated" in dg_says("check", "yaml")

    with Sandbox(2, folder=tmp_path / "sandbox", requests_per_second=None) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        with sandbox.exports.open("a") as exports:
            exports.write(SCHEDULES)
        (billing / "exports.yaml").write_text(sandbox.exports.read_text())
        assert "All definitions loaded" in dg_says("check", "defs")
        dg_says("launch", "--job", "billing__export_few")
        (launched,) = instance.get_runs()
        plain = definitions().resolve_job_def("export_few").execute_in_process(instance=instance)
        delivered, expected = (files_of(sandbox, run.run_id) for run in (launched, plain))
    assert launched.is_success
    assert delivered.keys() == {"account.csv", "account_plan.csv", "meter.csv", "manifest.json"}
    assert {name for name, content in delivered.items() if content != expected[name]} == {"manifest.json"}


def files_of(sandbox: Sandbox, export: str) -> dict[str, bytes]:
    """What an export has delivered, but for what the next one compares itself with."""
    there = sandbox.s3.objects("sandbox-warehouse").items()
    found = {key.partition(f"/{export}_")[2]: content for key, content in there}
    return {name: content for name, content in found.items() if name.endswith((".csv", ".json"))}
