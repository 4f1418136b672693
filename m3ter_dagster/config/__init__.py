"""exports.yaml and the environment, parsed once into frozen models. Nothing else reads either."""

from m3ter_dagster.config.environment import (
    EXAMPLE,
    SIGNING_KEY,
    absolute_paths,
    check_exports,
    dagster_home,
    environment_with,
    executor,
    exports_path,
    exports_text,
    home_warning,
    load_exports,
    load_exports_or_last_good,
    load_m3ter_settings,
    load_settings,
    organization_id,
    pace_folder,
    read_env_file,
)
from m3ter_dagster.config.exports_file import ConfigError, parse_exports
from m3ter_dagster.config.json_schema import exports_json_schema
from m3ter_dagster.config.last_good import Unloadable
from m3ter_dagster.config.models import (
    DESTINATIONS,
    AnySchedule,
    Destination,
    Exports,
    GcsDestination,
    LocalDestination,
    S3Destination,
)
from m3ter_dagster.config.notifications import Notifications, grace
from m3ter_dagster.config.organizations import M3terOrganization
from m3ter_dagster.config.schedules import ExportSchedule, FileFormat
from m3ter_dagster.config.settings import M3terSettings, Settings
from m3ter_dagster.config.shipped import new_exports_yaml, shipped, write_new
from m3ter_dagster.config.usage import UsageRawByDay, UsageSchedule, UsageSelection

__all__ = [
    "DESTINATIONS",
    "EXAMPLE",
    "SIGNING_KEY",
    "AnySchedule",
    "ConfigError",
    "Destination",
    "ExportSchedule",
    "Exports",
    "FileFormat",
    "GcsDestination",
    "LocalDestination",
    "M3terOrganization",
    "M3terSettings",
    "Notifications",
    "S3Destination",
    "Settings",
    "Unloadable",
    "UsageRawByDay",
    "UsageSchedule",
    "UsageSelection",
    "absolute_paths",
    "check_exports",
    "dagster_home",
    "environment_with",
    "executor",
    "exports_json_schema",
    "exports_path",
    "exports_text",
    "grace",
    "home_warning",
    "load_exports",
    "load_exports_or_last_good",
    "load_m3ter_settings",
    "load_settings",
    "new_exports_yaml",
    "organization_id",
    "pace_folder",
    "parse_exports",
    "read_env_file",
    "shipped",
    "write_new",
]
