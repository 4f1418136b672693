"""What assets, steps, jobs, sensors and resources are called in Dagster: with a prefix, they stand beside a host's."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import dagster as dg

SOURCES = "m3ter"
"""The folder of m3ter's own entities in the lineage."""


class UnusablePrefix(ValueError):
    def __init__(self, part: str) -> None:
        super().__init__(f"a prefix of names in Dagster has the part {part!r}; use letters, digits and underscores.")


class KeyTaken(ValueError):
    def __init__(self, asset: str, key: dg.AssetKey, owner: str) -> None:
        super().__init__(
            f"the translation gives the asset {asset!r} the key {key.to_user_string()!r}, which {owner} has; give each "
            "one of its own, such as one with {{ asset.name }} in it."
        )


@dataclass(frozen=True)
class Names:
    """The names of one `build_definitions`. With ("billing",), `account` is billing/account, its step billing__account.

    Asset keys are the only place where parts are separate; all other names have them joined as Dagster joins them.
    """

    prefix: tuple[str, ...] = ()
    keys: Mapping[str, dg.AssetKey] = field(default_factory=dict, hash=False)
    """The keys, by asset, that a translator has chosen instead of prefix and name. Steps are called after them."""

    def __post_init__(self) -> None:
        for part in self.prefix:
            if not re.fullmatch("[A-Za-z0-9_]+", part):
                raise UnusablePrefix(part)
        taken: dict[dg.AssetKey, str] = {}
        for asset, key in self.keys.items():
            if key.path[:-1] == [*self.prefix, SOURCES]:
                raise KeyTaken(asset, key, "m3ter's own entity in the lineage")
            if key in taken:
                raise KeyTaken(asset, key, repr(taken[key]))
            taken[key] = asset

    def within(self, part: str) -> Names:
        """Those of one of several `build_definitions` that stand side by side under this prefix."""
        return Names((*self.prefix, part))

    def key(self, asset: str) -> dg.AssetKey:
        return self.keys.get(asset) or dg.AssetKey([*self.prefix, asset])

    def step(self, asset: str) -> str:
        """The step of an asset, as Dagster calls it after the asset's key."""
        return self.key(asset).to_python_identifier()

    def source(self, entity: str) -> dg.AssetKey:
        """The entity in m3ter, which is read and never written."""
        return dg.AssetKey([*self.prefix, SOURCES, entity])

    def own(self, name: str) -> str:
        """A job, schedule, sensor, resource or group, or an op that is no asset's."""
        return "__".join((*self.prefix, name))

    @property
    def pool(self) -> str:
        """What all steps that ask m3ter share; limited only where the host's instance limits it."""
        return self.own(SOURCES)

    def asset(self, key: dg.AssetKey) -> str:
        """The name of the asset with this key; empty if it does not have the prefix, and with a / if it has more."""
        chosen = next((asset for asset, one in self.keys.items() if one == key), "")
        count = len(self.prefix)
        name = "/".join(key.path[count:]) if tuple(key.path[:count]) == self.prefix else ""
        return chosen or ("" if name in self.keys else name)

    def of_steps(self, steps: Collection[str]) -> set[str]:
        """The assets of these steps, without the prefix; steps that do not have it are another's."""
        chosen = {self.step(asset): asset for asset in self.keys}
        prefix = self.own("")
        others = {step.removeprefix(prefix) for step in steps if step not in chosen and step.startswith(prefix)}
        return {chosen[step] for step in steps if step in chosen} | (others - self.keys.keys())

    def schedule(self, code: str) -> str:
        """The schedule with this code, as runs are tagged."""
        return "/".join((*self.prefix, code))

    def code(self, schedule: str) -> str | None:
        """The code of the schedule that a run is tagged with; None: it is another's."""
        prefix = self.schedule("")
        return schedule.removeprefix(prefix) if schedule.startswith(prefix) else None


DEFAULT = Names()
"""Those of this project by itself."""
