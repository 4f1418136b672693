"""The environment: where exports.yaml and Dagster's home are, and how to reach m3ter. No other module reads it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from m3ter_dagster.config.exports_file import ConfigError, parse_exports
from m3ter_dagster.config.fields import Url, is_this_machine, rule
from m3ter_dagster.config.last_good import Kept, Unloadable
from m3ter_dagster.config.models import Exports
from m3ter_dagster.config.secrets import with_secrets
from m3ter_dagster.config.wording import refusals, sentence
from m3ter_dagster.config.yaml_lines import variables_in

Executor = Literal["in_process", "multiprocess"]
EXECUTORS: tuple[Executor, ...] = get_args(Executor)
FASTEST = 50.0
"""m3ter answers at most this many requests a second per Organization."""
LEAST_FREE_MB = "200"
SIGNING_KEY = "M3TER_SIGNING_KEY"

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

Patience = Annotated[float, rule("write a number of seconds, 0 or more", ge=0, allow_inf_nan=False)]
Timeout = Annotated[float, rule("write a number of seconds above 0", gt=0, allow_inf_nan=False)]


class M3terSettings(BaseSettings):
    """How to reach the API of one Organization, and how long to wait for it. Its repr shows no secret."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda field: f"M3TER_{field.upper()}",
        case_sensitive=True,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
    )

    api_key: SecretStr = Field(description="the access key id of a m3ter service user")
    api_secret: SecretStr = Field(description="the API secret that belongs to the access key id")
    # It becomes part of addresses and object keys.
    org_id: str = rule(
        "write the id alone, letters, digits, - and _",
        pattern="^[A-Za-z0-9_-]+$",
        description="the id of your m3ter Organization",
    )
    base_url: Url = "https://api.m3ter.com"
    requests_per_second: float = rule(
        f"write a number above 0 and at most {FASTEST:g}, which is what m3ter answers per Organization",
        default=40.0,
        gt=0,
        le=FASTEST,
    )
    patience_seconds: Patience = Field(default=900.0, description="how long m3ter may be down")
    rate_limit_patience_seconds: Patience = Field(
        default=360.0, description="how long a request is repeated that m3ter refuses because there were too many"
    )
    connect_timeout_seconds: Timeout = 10.0
    read_timeout_seconds: Timeout = 60.0
    job_pause_seconds: Timeout = Field(
        default=1.0, description="before m3ter is asked for the first time how far its export job is"
    )

    @field_validator("base_url")
    @classmethod
    def _keeps_the_secret(cls, url: str) -> str:
        address = urlsplit(url)
        if address.scheme == "http" and not is_this_machine(address.hostname or ""):
            raise ValueError(
                f"has the M3TER_BASE_URL {url!r}; write https://, since over http:// anyone on the way could read the "
                "secret (it is for this machine alone)"
            )
        return url

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        *_: PydanticBaseSettingsSource,
        **__: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read only the values handed in; pydantic-settings would read the process's environment as well."""
        return (init_settings,)


@dataclass(frozen=True)
class Settings:
    """What a run needs to know from the environment."""

    organization: M3terSettings | ConfigError
    """How to reach m3ter, or what is missing for that: definitions load without credentials."""
    executor: Executor = "in_process"
    least_free: int = int(LEAST_FREE_MB) * 1_000_000
    """Bytes that must be free for temporary files before anything is read."""
    pace_folder: Path | None = None
    """Where the processes of this machine keep the pace that they share; None: each has its own."""
    signing_key: SecretStr | ConfigError | None = None
    """The private key, in PEM, with which manifests are signed; None: they are not."""

    @property
    def org_id(self) -> str | None:
        """The Organization, if the environment says how to reach it."""
        return None if isinstance(self.organization, ConfigError) else self.organization.org_id

    def connection(self) -> M3terSettings:
        """How to reach m3ter; without credentials, ConfigError says what is missing."""
        if isinstance(self.organization, ConfigError):
            raise ConfigError(*self.organization.mistakes)
        return self.organization

    def signing_pem(self) -> str | None:
        """The private key; ConfigError says why it cannot be read."""
        if isinstance(self.signing_key, ConfigError):
            raise ConfigError(*self.signing_key.mistakes)
        return self.signing_key.get_secret_value() if self.signing_key else None


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    try:
        organization: M3terSettings | ConfigError = load_m3ter_settings(environ)
    except ConfigError as error:
        organization = error
    return Settings(organization, executor(environ), least_free(environ), pace_folder(environ), _signing_key(environ))


def _signing_key(environ: Mapping[str, str]) -> SecretStr | ConfigError | None:
    try:
        pem = _value(with_secrets(environ, {SIGNING_KEY}), SIGNING_KEY)
    except ConfigError as error:
        return error
    return SecretStr(pem) if pem else None


def load_m3ter_settings(environ: Mapping[str, str] = os.environ) -> M3terSettings:
    """The M3TER_* variables of the API, or one error about all that are missing or wrong."""
    source = EnvSettingsSource(M3terSettings)
    known = {str(field.alias) for field in M3terSettings.model_fields.values()}
    found = with_secrets(environ, known)
    source.env_vars = {name: value.strip() for name, value in found.items() if value.strip()}
    try:
        return M3terSettings.model_validate(source())
    except ValidationError as error:
        raise ConfigError(*_mistakes(error)) from None


def _mistakes(error: ValidationError) -> Iterator[str]:
    about = {field.alias: field.description for field in M3terSettings.model_fields.values()}
    for refusal in refusals(error, M3terSettings):
        name = str(refusal.loc[0])
        if refusal.kind == "missing":
            yield f"{name} is not set; it is {about[name]} ({_WHERE})."
        else:
            yield sentence(f"the environment {refusal.words}")


def executor(environ: Mapping[str, str] = os.environ) -> Executor:
    """Whether the steps of a run share one process, which reads ahead, or have one each."""
    name = _value(environ, "M3TER_EXECUTOR") or EXECUTORS[0]
    if name not in EXECUTORS:
        raise ConfigError(f"the environment has the M3TER_EXECUTOR {name!r}; write {' or '.join(EXECUTORS)}.")
    return name


def least_free(environ: Mapping[str, str] = os.environ) -> int:
    """How many bytes must be free for temporary files."""
    megabytes = _value(environ, "M3TER_LEAST_FREE_MB") or LEAST_FREE_MB
    if not megabytes.isascii() or not megabytes.isdigit():
        raise ConfigError(
            f"the environment has the M3TER_LEAST_FREE_MB {megabytes!r}; write a whole number of megabytes, 0 or more."
        )
    return int(megabytes) * 1_000_000


def read_env_file(environ: MutableMapping[str, str] = os.environ, *, folder: Path | None = None) -> None:
    """Add the variables of .env in the current folder, but for those that the environment has already."""
    path = (folder or Path.cwd()) / ".env"
    if not path.is_file():
        return
    from dotenv import dotenv_values

    try:
        found = dotenv_values(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{_shown(path)}: cannot be read: {error}; save it as UTF-8, readable for you.") from None
    for name, value in found.items():
        if value is not None:
            environ.setdefault(name, value)


def dagster_home(environ: MutableMapping[str, str] = os.environ, *, must_exist: bool = False) -> Path:
    """DAGSTER_HOME, else .dagster in the current folder, kept from run to run; Dagster finds it in `environ`, too.

    One that is named `must_exist` for what only looks back: its name may be misspelt.
    """
    named = _value(environ, "DAGSTER_HOME")
    home = Path(named or ".dagster").absolute()
    if named and must_exist and not home.exists():
        raise ConfigError(f"the environment has the DAGSTER_HOME {named!r}, which does not exist: correct its name.")
    environ["DAGSTER_HOME"] = str(home)
    return home


def pace_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """In DAGSTER_HOME, which all exports of a deployment have in common, else one of the user for temporary files."""
    home = _value(environ, "DAGSTER_HOME")
    return Path(home).absolute() / "m3ter-pace" if home else Path(tempfile.gettempdir()) / f"m3ter-pace-{os.getuid()}"


def organization_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """M3TER_ORG_ID, for what needs no access to m3ter."""
    return _value(with_secrets(environ, {"M3TER_ORG_ID"}), "M3TER_ORG_ID") or None


def absolute_paths(environ: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a process in another folder, which finds the same exports.yaml and the same home."""
    return {**environ, "DAGSTER_HOME": str(dagster_home(environ)), "M3TER_EXPORTS": str(exports_path(environ))}


def home_warning(environ: Mapping[str, str] = os.environ) -> str | None:
    """Why Dagster would forget what it has exported; None if its home is kept."""
    named = _value(environ, "DAGSTER_HOME")
    if not named:
        return (
            "DAGSTER_HOME is not set. These commands keep Dagster's records in .dagster, in the current folder; a "
            "`dagster dev` of your own forgets them when it ends: start `m3ter-dagster ui`, or set DAGSTER_HOME."
        )
    if Path(named).absolute().is_relative_to(tempfile.gettempdir()):
        return (
            f"DAGSTER_HOME is {named}, in the folder for temporary files. When that is cleared, every schedule exports "
            "as if for the first time: set it to a folder that is kept."
        )
    return None


def exports_path(environ: Mapping[str, str] = os.environ, *, folder: Path | None = None) -> Path:
    """M3TER_EXPORTS, else exports.yaml in the current folder (beside workspace.yaml)."""
    named = _value(environ, "M3TER_EXPORTS") or "exports.yaml"
    return (folder or Path.cwd()) / Path(named).expanduser()


def load_exports(environ: Mapping[str, str] = os.environ, *, folder: Path | None = None) -> Exports:
    """The checked exports.yaml; needs no credentials."""
    path = exports_path(environ, folder=folder)
    return check_exports(_text(path), path, environ)


def exports_text(environ: Mapping[str, str] = os.environ) -> str:
    """exports.yaml as it stands there, unchecked."""
    return _text(exports_path(environ))


def check_exports(text: str, path: Path, environ: Mapping[str, str] = os.environ) -> Exports:
    """The exports of a text that is that of the file, or is to be."""
    return parse_exports(text, file=_shown(path), environ=with_secrets(environ, variables_in(text)))


def load_exports_or_last_good(
    environ: Mapping[str, str] = os.environ, *, folder: Path | None = None
) -> tuple[Exports, Unloadable | None]:
    """The checked exports.yaml; as long as it is wrong, the last one that was right, and what is wrong now.

    Without a DAGSTER_HOME, or one that has such a file, ConfigError says what is wrong.
    """
    path, home = exports_path(environ, folder=folder), _value(environ, "DAGSTER_HOME")
    kept = Kept.of(path, Path(home)) if home else None
    try:
        text = _text(path)
        exports = check_exports(text, path, environ)
    except ConfigError as error:
        last_good = kept.text() if kept else None
        if not kept or last_good is None:
            raise
        try:
            return check_exports(last_good, path, environ), kept.instead_of(error.mistakes)
        except ConfigError:
            raise error from None
    if kept:
        kept.keep(text)
    return exports, None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(_no_file(path)) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError(f"{_shown(path)}:{line}: not UTF-8 text; save the file as UTF-8.") from None
    except OSError as error:
        raise ConfigError(f"{_shown(path)}: cannot be read: {error.strerror}.") from None


def _no_file(path: Path) -> str:
    return (
        f"there is no {path}; write one that names at least a destination (`m3ter-dagster init` writes one to fill "
        "in), or set M3TER_EXPORTS to its path. "
        f"For example:\n\n{EXAMPLE}"
    )


def _shown(path: Path) -> str:
    """The path of a file as messages show it: relative inside the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _value(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()
