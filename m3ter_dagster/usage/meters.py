"""What measurements need to know about the meters of an Organization, collected from the pages of their list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

NUMERIC = ("MEASURE", "INCOME", "COST")
"""Categories of meter fields that hold numbers."""


@dataclass(frozen=True)
class MeterField:
    code: str
    name: str
    category: str

    @property
    def is_number(self) -> bool:
        return self.category in NUMERIC


@dataclass(frozen=True)
class Meter:
    id: str
    fields: tuple[MeterField, ...]

    def field(self, code: str) -> MeterField | None:
        return next((one for one in self.fields if one.code == code), None)


class UnreadableMeter(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(
            f"a meter of the Organization cannot be read ({reason}), so the columns of measurements are not known; "
            "the export of METERS names it."
        )


class MeterRecords:
    """Collects what measurements need, so that a meter which breaks its own schema elsewhere still counts here."""

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}

    def add(self, page: bytes) -> None:
        try:
            records = msgspec.json.decode(page, type=list[_Record])
        except (msgspec.MsgspecError, RecursionError) as error:
            raise UnreadableMeter(str(error)) from None
        self._records.update((one.id, one) for one in records)

    def meters(self) -> Sequence[Meter]:
        """The meters, oldest first, so that a new one adds its columns at the end."""
        in_order = sorted(self._records.values(), key=lambda one: (one.dtCreated or "", one.id))
        return [
            Meter(
                one.id,
                tuple(
                    MeterField(field.code, field.name, field.category)
                    for field in (*(one.dataFields or ()), *(one.derivedFields or ()))
                ),
            )
            for one in in_order
        ]


class _Field(msgspec.Struct):
    code: str
    name: str
    category: str = "MEASURE"


class _Record(msgspec.Struct):
    id: str
    dtCreated: str | None = None
    dataFields: list[_Field] | None = None
    derivedFields: list[_Field] | None = None
