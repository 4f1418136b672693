"""What every model of exports.yaml is: frozen, written in camel case, without unknown keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails


class FileModel(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        hide_input_in_errors=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _leave_out_empty(cls, data: Any) -> Any:
        """`region:` with nothing behind it is `region` left out."""
        if not isinstance(data, Mapping):
            return data
        known = {field.alias for field in cls.model_fields.values()}
        return {key: value for key, value in data.items() if value is not None or key not in known}


def mistakes_of(error: ValidationError) -> list[ErrorDetails]:
    """Without those that only follow from another one: defaults that depend on a field which is wrong."""
    return [one for one in error.errors() if one["type"] != "default_factory_not_called"]
