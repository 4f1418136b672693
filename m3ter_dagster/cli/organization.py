"""--organization: which Organization of exports.yaml a command is about. Nothing else decides that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from m3ter_dagster.cli.terminal import Unusable, configured
from m3ter_dagster.config import (
    ConfigError,
    Exports,
    M3terOrganization,
    M3terSettings,
    Settings,
    load_exports,
    load_exports_or_last_good,
    load_settings,
    organization_id,
)
from m3ter_dagster.delivery.signatures import signer_of
from m3ter_dagster.model.suggestions import known_names

if TYPE_CHECKING:
    from m3ter_dagster.names import Names

organization_option = click.option(
    "--organization",
    metavar="CODE",
    help="The Organization; needed where exports.yaml has several.",
)


@dataclass(frozen=True)
class Chosen:
    """An Organization, its settings, and what it is called in Dagster."""

    organization: M3terOrganization | None = None
    """None: that of the environment."""

    @property
    def names(self) -> Names:
        from m3ter_dagster.names import DEFAULT

        return DEFAULT.within(self.organization.code) if self.organization else DEFAULT

    @property
    def org_id(self) -> str | None:
        """For what needs no access to m3ter; of the environment it may be unknown."""
        return self.organization.org_id if self.organization else configured(organization_id)

    def settings(self) -> Settings:
        one = self.organization
        return configured(lambda: load_settings(organizations=[one]).of(one.code) if one else load_settings())

    def connection(self) -> M3terSettings:
        """How to reach m3ter; what else a run reads from the environment is looked at, too."""
        settings = self.settings()
        configured(lambda: signer_of(settings))
        return configured(settings.connection)


def chosen(code: str | None) -> tuple[Exports, Chosen]:
    """The Organization of this code, or the only one, with its exports; otherwise the command says which there are."""
    exports = configured(load_exports)
    one = _named(code, exports)
    return exports.of(one) if one else exports, Chosen(one)


def chosen_to_look(code: str | None) -> Chosen:
    """The same for what works without a right exports.yaml: then it is that of the environment, unless one is named."""
    try:
        exports, _ = load_exports_or_last_good()
    except ConfigError as error:
        if code is not None:
            raise Unusable(str(error)) from None
        return Chosen()
    return Chosen(_named(code, exports))


def _named(code: str | None, exports: Exports) -> M3terOrganization | None:
    known = {one.code: one for one in exports.organizations}
    if code is None and len(known) > 1:
        raise click.UsageError(
            f"exports.yaml has several organizations; name one: --organization {' or '.join(known)}."
        )
    if code is not None and code not in known:
        there_are = known_names(code, known) if known else "exports.yaml has no organizations."
        raise click.UsageError(f"--organization: there is no organization {code!r}; {there_are}")
    return known[code] if code else next(iter(known.values()), None)
