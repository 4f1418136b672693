"""What a run needs to know from the environment, as frozen values: how to reach m3ter, and how the run works."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from m3ter_dagster.config.exports_file import ConfigError
from m3ter_dagster.config.fields import OrganizationId, RequestsPerSecond, Url, keeps_the_secret, rule

Executor = Literal["in_process", "multiprocess", "celery", "k8s"]
EXECUTORS: tuple[Executor, ...] = get_args(Executor)
LEAST_FREE_MB = "200"

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
    org_id: OrganizationId = Field(description="the id of your m3ter Organization")
    base_url: Url = "https://api.m3ter.com"
    requests_per_second: RequestsPerSecond = 40.0
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
        return keeps_the_secret(url, "M3TER_BASE_URL")

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
    organizations: tuple[tuple[str, M3terSettings | ConfigError], ...] = ()
    """The same as `organization` for each of exports.yaml, by its code."""

    def of(self, code: str) -> Settings:
        """Those of one Organization of exports.yaml."""
        unread = ConfigError(f"the settings were read without the organization {code!r}: give load_settings all.")
        return replace(self, organization=dict(self.organizations).get(code, unread), organizations=())

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
