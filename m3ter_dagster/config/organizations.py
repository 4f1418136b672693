"""Organizations in exports.yaml: where one project exports several, the access to each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from m3ter_dagster.config.fields import (
    DISTINCT,
    REFUSED,
    FileModel,
    Folder,
    OrganizationId,
    RequestsPerSecond,
    Url,
    keeps_the_secret,
    rule,
    written_as,
)


def _stripped(value: Any) -> Any:
    """Without the line end that a secret's store may add."""
    if isinstance(value, str) and not value.strip():
        raise PydanticCustomError(*REFUSED)
    return value.strip() if isinstance(value, str) else value


OrganizationCode = Annotated[
    str,
    # Dagster joins it with the names of assets and schedules by __.
    rule(
        "write letters and digits, with a single _ between them, at most 40 characters",
        pattern="^[A-Za-z0-9]+(_[A-Za-z0-9]+)*$",
        max_length=40,
        title="code",
    ),
]
OrganizationCodes = Annotated[tuple[OrganizationCode, ...], rule("write a list of organization codes", schema=DISTINCT)]
Secret = Annotated[
    SecretStr,
    rule("write ${NAME}, and the value into the environment's variable NAME"),
    BeforeValidator(_stripped),
]
SecretFile = Annotated[
    Folder, rule("write the absolute path of a file, such as /run/secrets/m3ter", schema={"pattern": "^[/~]"})
]


def _secret(variable: str, about: str) -> Any:
    return Field(
        default=None, description=f"{about}: {variable}.", examples=[f"${{{variable}}}"], validate_default=True
    )


class M3terOrganization(FileModel):
    """One Organization of m3ter, and its access key. What else the environment says holds for all."""

    code: OrganizationCode = Field(
        description="What its assets, jobs and schedules begin with in Dagster; to be chosen once, since history hangs "
        "on it.",
        examples=["production"],
    )
    org_id: OrganizationId = Field(
        description="The Organization's id.", examples=["5a7d0c0e-4f0b-4f0e-9d7e-2f1f6f0d3b11"]
    )
    api_key_file: SecretFile | None = Field(default=None, description="The file that holds the apiKey, in its place.")
    api_key: Secret | None = _secret("M3TER_PRODUCTION_API_KEY", "The access key id of a service user, by a variable")
    api_secret_file: SecretFile | None = Field(
        default=None, description="The file that holds the apiSecret, in its place.", examples=["/run/secrets/m3ter"]
    )
    api_secret: Secret | None = _secret(
        "M3TER_PRODUCTION_API_SECRET", "The API secret of the access key, by a variable"
    )
    base_url: Annotated[Url, AfterValidator(lambda url: keeps_the_secret(url, "baseUrl"))] | None = Field(
        default=None, description="The address of its API; left out: M3TER_BASE_URL."
    )
    requests_per_second: Annotated[RequestsPerSecond, written_as(r"[0-9]{1,2}(\.[0-9]{1,3})?")] | None = Field(
        default=None, description="Its pace; left out: M3TER_REQUESTS_PER_SECOND."
    )

    @field_validator("api_key", "api_secret")
    @classmethod
    def _is_there_once(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        name = to_camel(str(info.field_name))
        has_file = info.data.get(f"{info.field_name}_file", "") is not None  # a wrong one is there, too
        if value is None and not has_file:
            raise PydanticCustomError("missing", "Without a file it is needed.")
        if value is not None and has_file:
            raise ValueError(f"has an {name} and an {name}File; keep one of them")
        return value
