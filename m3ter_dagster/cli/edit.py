"""m3ter-dagster schedule and destination: exports.yaml changed from a terminal, by options or by answers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
import msgspec

from m3ter_dagster.cli.questions import ask, heard, in_order
from m3ter_dagster.cli.schedules import schedules
from m3ter_dagster.cli.terminal import Unusable, as_json, configured, print_json, print_table, printable
from m3ter_dagster.config import (
    DESTINATIONS,
    AnySchedule,
    ConfigError,
    Destination,
    Exports,
    ExportSchedule,
    GcsDestination,
    LocalDestination,
    S3Destination,
    UsageSchedule,
    check_exports,
    exports_path,
    exports_text,
    load_exports,
)
from m3ter_dagster.config.answers import option_of, questions
from m3ter_dagster.config.data_types import data_types
from m3ter_dagster.config.exports_edit import (
    Answer,
    NotEditable,
    plain,
    replace_text,
    with_fields,
    with_item,
    without_item,
)
from m3ter_dagster.config.fields import FileModel
from m3ter_dagster.config.names import ALL_AND_REFERENCES, OPERATIONAL, USAGE
from m3ter_dagster.model.suggestions import known_names

TAKEN_UP = (
    "{file} is changed. Dagster takes the edit up on Deployment > Reload in its UI; that of `m3ter-dagster ui` by "
    "itself, within about a minute."
)
ASKED_TOO = ("prefix", "iamRoleArn", "region", "serviceAccountEmail")
"""Questions that may be left without an answer."""
BY_CRON, BY_PERIOD = ("cronExpression",), ("scheduleType", "period")
"""How often: a schedule has one or the other."""
COLUMNS = ("destination", "where", "order", "role", "used by")

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")


class Listed(msgspec.Struct, frozen=True, rename="camel"):
    """An Export Destination, and what uses it."""

    destination: str
    destination_type: str
    where: str
    """The bucket and the prefix, or the folder."""
    partition_order: str
    iam_role_arn: str | None
    service_account_email: str | None
    is_default: bool
    schedules: list[str]


def options_of(*models: type[FileModel]) -> Callable[[Command], Command]:
    """An option for each field of the models but its code, and those that are no text or list of texts; the names are
    those of the file, as --schedule-type.
    """
    fields = {str(one.alias): one for model in models for one in model.model_fields.values()}
    for name in ("code", "excludeColumns"):
        fields.pop(name, None)

    def add(command: Command) -> Command:
        for name, field in reversed(in_order(fields).items()):
            example = (field.examples or [None])[0]
            such_as = ",".join(example) if isinstance(example, list) else example
            about = f"{field.description}{f' Such as {such_as}.' if such_as else ''}"
            command = click.option(option_of(name), name, help=about)(command)
        return click.argument("code")(click.option("--yes", is_flag=True, help="Write without asking.")(command))

    return add


@click.group()
def schedule() -> None:
    """List, add, edit or remove Export Schedules of exports.yaml. What has no option is asked."""


schedule.add_command(schedules, "list")


@schedule.command("add")
@options_of(ExportSchedule, UsageSchedule)
def add_schedule(code: str, yes: bool, **given: str | None) -> None:
    """Add the Export Schedule CODE. Lists are comma-separated; an empty text leaves a field out."""
    text, exports = _read()
    _refuse_known("schedule", code, exports.schedules)
    fields = _fields(given, ExportSchedule, UsageSchedule)
    defaults: dict[str, Answer] = {
        "destinations": list(exports.default_destinations),
        "dtCreated": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    }
    if fields:
        fields.setdefault("dtCreated", defaults["dtCreated"])
    else:
        kind = replace(questions(UsageSchedule)["sourceType"], choices=(OPERATIONAL, USAGE))
        fields["sourceType"] = ask(kind, OPERATIONAL)
    model = UsageSchedule if fields.get("sourceType") == USAGE else ExportSchedule
    needed = _needed(exports, fields)
    fields = {"code": code, **fields, **_asked(model, exports, defaults, but=("code", *fields), needed=needed)}
    _save(text, with_item, "schedules", in_order(fields), yes=yes)


@schedule.command("edit")
@options_of(ExportSchedule, UsageSchedule)
def edit_schedule(code: str, yes: bool, **given: str | None) -> None:
    """Change fields of the Export Schedule CODE; without options each is asked. An empty text leaves a field out.

    A new dtCreated makes it a new schedule: its first export is due at once.
    """
    text, exports = _read()
    index = _index("schedule", code, exports.schedules)
    before = plain(text)["schedules"][index]
    fields = _fields(given, ExportSchedule, UsageSchedule)
    if not fields:
        needed = _needed(exports, before)
        fields = _asked(type(exports.schedules[index]), exports, before, but=("code", "sourceType"), needed=needed)
    _save(text, with_fields, "schedules", index, _changed(fields, before), yes=yes)


@schedule.command("remove")
@options_of()
def remove_schedule(code: str, yes: bool) -> None:
    """Remove the Export Schedule CODE. What it has delivered stays."""
    text, exports = _read()
    index = _index("schedule", code, exports.schedules)
    _save(text, without_item, "schedules", index, yes=yes)


@click.group()
def destination() -> None:
    """List, add, edit or remove Export Destinations of exports.yaml. What has no option is asked."""


@destination.command("list")
@as_json
def list_destinations(as_json: bool) -> None:
    """List the Export Destinations of exports.yaml, and what uses each."""
    exports = configured(load_exports)
    found = [_listed(one, exports) for one in exports.destinations]
    if as_json:
        print_json(found)
    else:
        print_table(COLUMNS, map(_row, found))


@destination.command("add")
@options_of(*DESTINATIONS.values())
def add_destination(code: str, yes: bool, **given: str | None) -> None:
    """Add the Export Destination CODE. An empty text leaves a field out; ${NAME} is a variable of the environment."""
    text, exports = _read()
    _refuse_known("destination", code, exports.destinations)
    fields, also = _fields(given, *DESTINATIONS.values()), ()
    if not fields:
        kind = replace(questions(LocalDestination)["destinationType"], choices=tuple(DESTINATIONS))
        fields, also = {"destinationType": ask(kind, next(iter(DESTINATIONS)))}, ASKED_TOO
    model = DESTINATIONS.get(str(fields.get("destinationType")), S3Destination)
    fields = {"code": code, **fields, **_asked(model, exports, {}, but=("code", *fields), also=also)}
    _save(text, with_item, "destinations", in_order(fields), yes=yes)


@destination.command("edit")
@options_of(*DESTINATIONS.values())
def edit_destination(code: str, yes: bool, **given: str | None) -> None:
    """Change fields of the Export Destination CODE; without options each is asked. An empty text leaves a field out.

    What was delivered stays where it is.
    """
    text, exports = _read()
    index = _index("destination", code, exports.destinations)
    before = plain(text)["destinations"][index]
    fields = _fields(given, *DESTINATIONS.values())
    if not fields:
        model = type(exports.destinations[index])
        fields = _asked(model, exports, before, but=("code", "destinationType"), also=ASKED_TOO)
    _save(text, with_fields, "destinations", index, _changed(fields, before), yes=yes)


@destination.command("remove")
@options_of()
def remove_destination(code: str, yes: bool) -> None:
    """Remove the Export Destination CODE, which nothing may use any more. What was delivered there stays."""
    text, exports = _read()
    index = _index("destination", code, exports.destinations)
    users = [f"the schedule {one!r}" for one in _listed(exports.destinations[index], exports).schedules]
    if code in (plain(text).get("defaultDestinations") or ()):
        users.append("defaultDestinations")
    if users:
        raise Unusable(f"destination {code!r} is used by {', '.join(users)}; name another destination there first.")
    _save(text, without_item, "destinations", index, yes=yes)


def _read() -> tuple[str, Exports]:
    """exports.yaml as it stands there, and what it says, which must be right before anything is changed."""
    return configured(exports_text), configured(load_exports)


def _save(text: str, change: Callable[..., str], *what: Any, yes: bool) -> None:
    """Write the changed text, if it is right and a person who sees the difference wants it."""
    path = exports_path()
    try:
        new = change(text, *what)
        check_exports(new, path)
    except NotEditable as error:
        raise Unusable(f"nothing was written: {path} {error}") from None
    except ConfigError as error:
        raise Unusable(f"nothing was written, because exports.yaml would be wrong:\n{error}") from None
    if new == text:
        click.echo("There is nothing to change.")
        return
    for line in difflib.unified_diff(text.splitlines(), new.splitlines(), str(path), str(path), lineterm=""):
        click.echo(printable(line))
    if not yes and not heard(lambda: click.confirm("Write this?"), "--yes"):
        click.echo("Nothing was written.")
        return
    if configured(exports_text) != text:
        raise Unusable(f"nothing was written: {path} was changed by somebody else meanwhile; run the command again.")
    try:
        replace_text(path, new)
    except OSError as error:
        raise Unusable(f"{path} cannot be written: {error.strerror}.") from None
    click.echo(TAKEN_UP.format(file=path))


def _fields(given: Mapping[str, str | None], *models: type[FileModel]) -> dict[str, Answer]:
    """The options that were given, as exports.yaml has them."""
    known = {name: one for model in models for name, one in questions(model).items()}
    return {name: known[name].answer(text) for name, text in given.items() if text is not None}


def _changed(fields: Mapping[str, Answer], before: Mapping[str, Answer]) -> dict[str, Answer]:
    return {name: value for name, value in fields.items() if value != before.get(name)}


def _asked(
    model: type[FileModel],
    exports: Exports,
    defaults: Mapping[str, Answer],
    *,
    but: Sequence[str],
    needed: Sequence[str] = (),
    also: Sequence[str] = (),
) -> dict[str, Answer]:
    """A person's answers for the fields that an item of this model must have, or this one, and for some it may have."""
    choices = {
        "operationalDataTypes": (*data_types(), ALL_AND_REFERENCES),
        "destinations": tuple(one.code for one in exports.destinations),
        "organizations": tuple(one.code for one in exports.organizations),
    }
    found = {}
    for name, question in in_order(questions(model)).items():
        must = question.is_needed or name in needed
        if name not in but and (must or name in also):
            question = replace(question, choices=choices.get(name, question.choices))
            found[name] = ask(question, defaults.get(name, None if must else ""))
    return found


def _needed(exports: Exports, fields: Mapping[str, Any]) -> tuple[str, ...]:
    """What else a schedule with these fields must say."""
    often = BY_CRON if "cronExpression" in fields else BY_PERIOD
    return (*(["organizations"] if exports.organizations[1:] else []), *often)


def _refuse_known(noun: str, code: str, items: Sequence[AnySchedule | Destination]) -> None:
    if any(one.code == code for one in items):
        raise click.UsageError(f"there is a {noun} {code!r} already; change it with `{noun} edit`.")


def _index(noun: str, code: str, items: Sequence[AnySchedule | Destination]) -> int:
    codes = [one.code for one in items]
    if code not in codes:
        known = known_names(code, codes) if codes else f"exports.yaml has no {noun}s."
        raise click.UsageError(f"there is no {noun} {code!r}; {known}")
    return codes.index(code)


def _listed(one: Destination, exports: Exports) -> Listed:
    return Listed(
        destination=one.code,
        destination_type=one.destination_type,
        where=str(one.path)
        if isinstance(one, LocalDestination)
        else "/".join(filter(None, (one.bucket_name, one.prefix))),
        partition_order=one.partition_order,
        iam_role_arn=one.iam_role_arn if isinstance(one, S3Destination) else None,
        service_account_email=one.service_account_email if isinstance(one, GcsDestination) else None,
        is_default=one.code in exports.default_destinations,
        schedules=[schedule.code for schedule in exports.schedules if one.code in schedule.destinations],
    )


def _row(one: Listed) -> tuple[str, ...]:
    users = [*one.schedules, *(["exports by hand"] if one.is_default else [])]
    role = one.iam_role_arn or one.service_account_email or ""
    return one.destination, one.where, one.partition_order, role, ", ".join(users)
