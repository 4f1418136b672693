"""A hook of MkDocs: pages made from the code, one per entity from schemas/, and exports.yaml from its models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from m3ter_dagster.config import exports_json_schema
from m3ter_dagster.model.entities import entities, operational_entities
from m3ter_dagster.model.entity import Column, Entity, Reference

MODELS = {
    "S3Destination": "destinations",
    "GcsDestination": "destinations at Google Cloud Storage",
    "LocalDestination": "destinations in a folder",
    "M3terOrganization": "organizations",
    "ExportSchedule": "schedules",
    "UsageSchedule": "schedules of measurements",
    "Notifications": "notifications",
}


def on_config(config: MkDocsConfig) -> None:
    """Entities are in the navigation in the order of their names."""
    (section,) = [one["Entities"] for one in config.nav or () if "Entities" in one]
    section += [f"entities/{name}.md" for name in entities()]


def on_files(files: Files, *, config: MkDocsConfig) -> None:
    pages = {"exports-yaml.md": exports_page(), "entities/index.md": entities_index()}
    pages |= {f"entities/{one.name}.md": entity_page(one) for one in entities().values()}
    for path, lines in pages.items():
        files.append(File.generated(config, path, content="\n".join(lines) + "\n"))


def entity_page(entity: Entity) -> Iterator[str]:
    about = json.loads(entity.table_schema)
    yield f"# {entity.title}\n\n{entity.description}\n"
    yield f"`{entity.name}`, in exports.yaml also `{entity.operational_data_type}`. {_listed(entity)}\n"
    if entity.is_reference:
        yield "No export of m3ter has it: the columns are those of the API, in its order, with `deleted` last.\n"
    elif "m3ter:documented" not in about:
        yield "[Not on m3ter's page of columns](../corrections.md): these are the API's, in the API's order.\n"
    yield "| column | type | |\n| --- | --- | --- |"
    for column, field in zip(entity.columns, about["fields"], strict=True):
        type_ = f"{column.type} ({column.format})" if column.format else column.type
        yield f"| `{column.name}` | {type_} | {_cell(' '.join(_about(column, field, entity)))} |"
    if entity.not_exported:
        fields = ", ".join(f"`{name}`" for name in sorted(entity.not_exported))
        yield f"\nThe API has these fields, and m3ter's export does not: {fields}."


def _listed(entity: Entity) -> str:
    listing = entity.listing
    how = f"`GET {listing.path}`"
    if listing.is_one_record:
        return f"The one row is {how}."
    if listing.for_each:
        how += f", once per {listing.for_each.entity.replace('_', ' ')}"
    if entity.elements:
        arrays = " and ".join(f"`{name}`" for name, _ in entity.elements)
        return f"A row is an element of {arrays} of the records of {how}."
    return f"A row is a record of {how}."


def _about(column: Column, field: Mapping[str, Any], entity: Entity) -> Iterator[str]:
    yield column.description
    if column.name == entity.primary_key:
        yield "Primary key."
    for one in entity.references:
        if one.column == column.name:
            yield f"Refers to {_linked(one)}{_where(one)}."
    if column.is_personal:
        yield "Personal."
    if column.api_field and column.api_field != column.name:
        yield f"The API's `{column.api_field}`."
    if not (column.api_field or column.parent_field) and column.constant is None and not entity.elements:
        yield "The API has no value for it."
    if documented := field.get("m3ter:documented"):
        yield f"Published as {', '.join(f'{what} `{value}`' for what, value in documented.items())}."


def _linked(reference: Reference) -> str:
    return " or ".join(f"[{name}]({name}.md)" for name in reference.to)


def _where(reference: Reference) -> str:
    return f" where `{reference.where[0]}` is `{reference.where[1]}`" if reference.where else ""


def model_section(title: str, model: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {title}\n\n{model.get('description', '')}\n"
    yield "| field | | |\n| --- | --- | --- |"
    for name, field in model["properties"].items():
        need = "required" if name in model.get("required", ()) else ""
        default = field.get("default")
        if default not in (None, "", [], {}):
            need = f"default `{json.dumps(default).strip(chr(34))}`"
        yield f"| `{name}` | {need} | {_cell(' '.join(_field(field)))} |"
    yield ""


def _field(field: Mapping[str, Any]) -> Iterator[str]:
    yield field.get("description", "")
    for one in (field, *field.get("anyOf", ())):
        if "enum" in one:
            yield f"One of {', '.join(f'`{value}`' for value in one['enum'])}."
        elif "errorMessage" in one:
            yield f"{one['errorMessage'][0].upper()}{one['errorMessage'][1:]}."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def entities_index() -> Iterator[str]:
    yield "# Entities\n\nWhat an export of `ALL` has, a file each; columns stand in m3ter's published order.\n"
    yield from _entity_table(operational_entities().values())
    yield (
        "\n## Reference entities\n\nWhat no export of m3ter has, although rows of the others refer to it. They are "
        "exported where exports.yaml or `--entities` names them, or `ALL_AND_REFERENCES`, which is all of both; the "
        "columns are those of m3ter's API.\n"
    )
    yield from _entity_table(one for one in entities().values() if one.is_reference)
    yield (
        "\n## Which key leads where\n\nThe check `foreign_keys` of an entity looks each of them up in the same export, "
        "and so does `m3ter-dagster verify`; a key whose file the export does not have is not checked.\n"
    )
    yield "| column | leads to |\n| --- | --- |"
    for entity in entities().values():
        for one in entity.references:
            yield f"| `{entity.name}.{one.column}`{_where(one)} | {_linked(one)} |"
    yield (
        "\nThese lead to no file: `createdBy`, `lastModifiedBy`, `approvedBy`, `lockedBy` and what `entityId` of a "
        "balance transaction is where `entityType` is `USER` or `SERVICE_USER` are ids of people and programs, whose "
        "list holds names and addresses of your colleagues and is not exported. That a `creditTypeId` is the id of a "
        "currency is not said by m3ter; the check shows whether it is so in your Organization. Of external mappings, "
        "m3ter documents no value of `m3terEntity` but `Account`."
    )


def _entity_table(chosen: Iterable[Entity]) -> Iterator[str]:
    yield "| entity | in exports.yaml | columns | |\n| --- | --- | ---: | --- |"
    for entity in chosen:
        link = f"[{entity.name}]({entity.name}.md)"
        yield f"| {link} | `{entity.operational_data_type}` | {len(entity.columns)} | {_cell(entity.description)} |"


def exports_page() -> Iterator[str]:
    schema = exports_json_schema()
    yield "# exports.yaml\n"
    yield (
        "Where exports go and when. The field names are those of m3ter's API. A value may be `${NAME}`, a variable of "
        "the environment. `m3ter-dagster check` says what is wrong and in which line; editors complete and check the "
        "file by its JSON Schema, [exports.schema.json](exports.schema.json).\n"
    )
    yield from model_section("The file", schema)
    for name, title in MODELS.items():
        yield from model_section(title, schema["$defs"][name])
