"""The environment: where exports.yaml is, and how to reach m3ter. No other module reads environment variables."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, SecretStr

from m3ter_dagster.config.exports_file import ConfigError, parse_exports
from m3ter_dagster.config.models import Exports
from m3ter_dagster.config.values import http_url

Executor = Literal["in_process", "multiprocess"]
EXECUTORS = ("in_process", "multiprocess")
FASTEST = 50.0
"""m3ter answers at most this many requests a second per Organization."""

_CREDENTIALS = {
    "M3TER_API_KEY": "the access key id of a m3ter service user",
    "M3TER_API_SECRET": "the API secret that belongs to the access key id",
    "M3TER_ORG_ID": "the id of your m3ter Organization",
}
_SECONDS = (
    *("patience_seconds", "rate_limit_patience_seconds"),
    *("connect_timeout_seconds", "read_timeout_seconds", "job_pause_seconds"),
)
_WHERE = "all three are shown in the m3ter Console under Settings > Access > Service Users, Generate Access Key"

EXAMPLE = """\
destinations:
  - code: warehouse
    bucketName: acme-m3ter-exports
schedules:
  - code: nightly
    operationalDataTypes: ALL
    destinations: [warehouse]
    scheduleType: DAY
    period: 1
    dtCreated: 2024-06-01T02:00:00Z
"""


class M3terSettings(BaseModel):
    """How to reach the API of one Organization. Its repr shows no secret."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    api_key: SecretStr
    api_secret: SecretStr
    org_id: str
    base_url: str = "https://api.m3ter.com"
    requests_per_second: float = 40.0
    patience_seconds: float = 60.0
    rate_limit_patience_seconds: float = 360.0
    connect_timeout_seconds: float = 10.0
    read_timeout_seconds: float = 60.0
    job_pause_seconds: float = 1.0


def load_m3ter_settings(environ: Mapping[str, str] = os.environ) -> M3terSettings:
    """The M3TER_* variables of the API, or one error about all that are missing or wrong."""
    mistakes: list[str] = []
    values: dict[str, Any] = {}
    for name, what in _CREDENTIALS.items():
        values[name] = _value(environ, name)
        if not values[name]:
            mistakes.append(f"{name} is not set; it is {what} ({_WHERE}).")
    _checked(lambda: _org_id(environ), mistakes)
    base_url = _checked(lambda: _base_url(environ), mistakes)
    pace = _checked(lambda: _requests_per_second(environ), mistakes)
    seconds = {name: float(text) for name in _SECONDS if (text := _value(environ, f"M3TER_{name.upper()}"))}
    if mistakes:
        raise ConfigError(*mistakes)
    return M3terSettings(
        api_key=values["M3TER_API_KEY"],
        api_secret=values["M3TER_API_SECRET"],
        org_id=values["M3TER_ORG_ID"],
        base_url=base_url,
        requests_per_second=pace,
        **seconds,
    )


def executor(environ: Mapping[str, str] = os.environ) -> Executor:
    """Whether the steps of a run share one process (read ahead) or have one each."""
    name = _value(environ, "M3TER_EXECUTOR") or EXECUTORS[0]
    if name not in EXECUTORS:
        raise ConfigError(f"the environment has the M3TER_EXECUTOR {name!r}; write {' or '.join(EXECUTORS)}.")
    return name


def exports_path(environ: Mapping[str, str] = os.environ, *, folder: Path | None = None) -> Path:
    """M3TER_EXPORTS, else exports.yaml in the current folder (beside workspace.yaml), else in the checkout."""
    here = folder or Path.cwd()
    named = _value(environ, "M3TER_EXPORTS")
    if named:
        return here / Path(named).expanduser()
    candidates = [here / "exports.yaml", Path(__file__).parents[2] / "exports.yaml"]
    return next((path for path in candidates if path.is_file()), candidates[0])


def load_exports(environ: Mapping[str, str] = os.environ, *, folder: Path | None = None) -> Exports:
    """exports.yaml, whole and checked; needs none of the credentials."""
    path = exports_path(environ, folder=folder)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(_no_file(path)) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError(f"{_shown(path)}:{line}: not UTF-8 text; save the file as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{_shown(path)}: cannot be read: {error.strerror}.") from None
    return parse_exports(text, file=_shown(path), environ=environ)


def _no_file(path: Path) -> str:
    return (
        f"there is no {path}; write one that names at least a destination, or set M3TER_EXPORTS to its path. "
        f"For example:\n\n{EXAMPLE}"
    )


def _shown(path: Path) -> str:
    """Short where the reader is in the folder, whole elsewhere."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _value(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()


def _checked(read: Callable[[], Any], mistakes: list[str]) -> Any:
    try:
        return read()
    except ValueError as error:
        mistakes.append(f"the environment {error}.")
        return None


def _org_id(environ: Mapping[str, str]) -> None:
    """It becomes part of addresses and object keys."""
    org_id = _value(environ, "M3TER_ORG_ID")
    if not re.fullmatch(r"[A-Za-z0-9_-]*", org_id):
        raise ValueError(f"has the M3TER_ORG_ID {org_id!r}; write the id alone, letters, digits, - and _")


def _base_url(environ: Mapping[str, str]) -> str:
    return http_url(
        "M3TER_BASE_URL", _value(environ, "M3TER_BASE_URL") or M3terSettings.model_fields["base_url"].default
    )


def _requests_per_second(environ: Mapping[str, str]) -> float:
    text = _value(environ, "M3TER_REQUESTS_PER_SECOND") or "40"
    try:
        pace = float(text)
    except ValueError:
        pace = 0.0
    if not 0 < pace <= FASTEST:
        raise ValueError(
            f"has the M3TER_REQUESTS_PER_SECOND {text!r}; write a number above 0 and at most {FASTEST:g}, "
            "which is what m3ter answers per Organization"
        )
    return pace


@dataclass(frozen=True)
class Settings:
    """What the environment says: handed to definitions and commands, and read nowhere else."""

    organization: M3terSettings | ConfigError
    """Definitions load without credentials, so what is missing is kept until something is to be read."""
    executor: Executor = "in_process"

    def connection(self) -> M3terSettings:
        """ConfigError says which variables are missing or wrong."""
        if isinstance(self.organization, ConfigError):
            raise self.organization
        return self.organization


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    try:
        return Settings(load_m3ter_settings(environ), executor(environ))
    except ConfigError as error:
        return Settings(error, executor(environ))
