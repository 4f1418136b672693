"""What the assets need of Dagster's resources, by key."""

from __future__ import annotations

from typing import Any

import dagster as dg
import pytest

from m3ter_dagster.config import ConfigError, load_settings, parse_exports
from m3ter_dagster.resources import IO_MANAGER, export_resources

EXPORTS = parse_exports(
    """
    destinations: [{code: warehouse, bucketName: acme-1}, {code: archive, bucketName: acme-2}]
    defaultDestinations: [archive]
    """,
    environ={},
)
NO_CREDENTIALS = load_settings({})


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, ["archive"]), ({"destinations": None}, ["archive"]), ({"destinations": ["warehouse"]}, ["warehouse"])],
)
def test_exports_go_to_the_default_destinations_unless_others_are_named(given: Any, expected: list[str]) -> None:
    resources = export_resources(EXPORTS, NO_CREDENTIALS, **given)
    assert resources[IO_MANAGER].destinations == expected


def test_other_destinations_are_another_choice() -> None:
    """In one process, where Dagster keeps types by their names."""

    @dg.asset(io_manager_key=IO_MANAGER)
    def any_asset() -> None: ...

    other = parse_exports("destinations: [{code: vault, bucketName: acme-1}]", environ={})
    for exports, code in ((EXPORTS, "archive"), (other, "vault")):
        job = dg.define_asset_job("job", selection="*")
        resources = export_resources(exports, NO_CREDENTIALS)
        found = dg.Definitions(assets=[any_asset], jobs=[job], resources=resources).resolve_job_def("job")
        config = {"resources": {IO_MANAGER: {"config": {"destinations": [code]}}}}
        assert dg.validate_run_config(found, config)["resources"][IO_MANAGER] == {"config": {"destinations": [code]}}


def test_the_keys_stay_as_the_config_of_the_runs_of_years_has_them() -> None:
    assert set(export_resources(EXPORTS, NO_CREDENTIALS)) == {"organization", "csv_io_manager"}


def test_without_credentials_there_are_resources_but_no_organization() -> None:
    organization = export_resources(EXPORTS, NO_CREDENTIALS)["organization"]
    with pytest.raises(ConfigError, match=r"^M3TER_API_KEY is not set; "):
        _ = organization.id
