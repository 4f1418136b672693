"""What assets, steps, jobs, sensors and resources are called in Dagster: with a prefix, they stand beside a host's."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import dagster as dg

SOURCES = "m3ter"
"""The folder of m3ter's own entities in the lineage."""


class UnusablePrefix(ValueError):
    def __init__(self, part: str) -> None:
        super().__init__(f"a prefix of names in Dagster has the part {part!r}; use letters, digits and underscores.")


@dataclass(frozen=True)
class Names:
    """The names of one `build_definitions`. With ("billing",), `account` is billing/account, its step billing__account.

    Asset keys are the only place where parts are separate; all other names have them joined as Dagster joins them.
    """

    prefix: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for part in self.prefix:
            if not re.fullmatch("[A-Za-z0-9_]+", part):
                raise UnusablePrefix(part)

    def key(self, asset: str) -> dg.AssetKey:
        return dg.AssetKey([*self.prefix, asset])

    def source(self, entity: str) -> dg.AssetKey:
        """The entity in m3ter, which is read and never written."""
        return dg.AssetKey([*self.prefix, SOURCES, entity])

    def own(self, name: str) -> str:
        """A job, schedule, sensor, resource, group or op; that of an asset is also its step."""
        return "__".join((*self.prefix, name))

    @property
    def pool(self) -> str:
        """What all steps that ask m3ter share; limited only where the host's instance limits it."""
        return self.own(SOURCES)

    def asset(self, key: dg.AssetKey) -> str:
        """The name of the asset with this key; empty if it does not have the prefix, and with a / if it has more."""
        count = len(self.prefix)
        return "/".join(key.path[count:]) if tuple(key.path[:count]) == self.prefix else ""

    def of_steps(self, steps: Collection[str]) -> set[str]:
        """The assets of these steps, without the prefix; steps that do not have it are another's."""
        prefix = self.own("")
        return {step.removeprefix(prefix) for step in steps if step.startswith(prefix)}

    def schedule(self, code: str) -> str:
        """The schedule with this code, as runs are tagged."""
        return "/".join((*self.prefix, code))

    def code(self, schedule: str) -> str | None:
        """The code of the schedule that a run is tagged with; None: it is another's."""
        prefix = self.schedule("")
        return schedule.removeprefix(prefix) if schedule.startswith(prefix) else None


DEFAULT = Names()
"""Those of this project by itself."""
