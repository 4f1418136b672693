"""The descriptors in schemas/ say what m3ter's Data Export Entity Schema says, or note where they differ.

Three entities are not on the page as it could be had, and twelve are in no export of m3ter's: their columns are m3ter's
API's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from frictionless import Schema

from m3ter_dagster.model.descriptors import DescriptorError, load_entities
from m3ter_dagster.model.entities import UnknownEntity, entities, find_entity, operational_entities
from m3ter_dagster.model.entity import Entity, ForEach, Listing

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:frictionless.*")

PUBLISHED = Path(__file__).parent / "data" / "entity-schema.txt"
"""The tables of m3ter's page "Data Export Entity Schema" for the operational entities, word for word."""

NAMES = """
account account_plan aggregation balance balance_transaction bill bill_line_item charge commitment
compound_aggregation contract meter plan plan_group plan_group_link plan_template pricing pricing_band product
transaction_type
"""
OPERATIONAL_DATA_TYPES = """
ACCOUNTS ACCOUNT_PLANS AGGREGATIONS BALANCES BALANCE_TRANSACTIONS BILLS BILL_LINE_ITEMS CHARGES COMMITMENTS
COMPOUND_AGGREGATIONS CONTRACTS METERS PLANS PLAN_GROUPS PLAN_GROUP_LINKS PLAN_TEMPLATES PRICING PRICING_BANDS PRODUCTS
TRANSACTION_TYPES
"""
REFERENCE_DATA_TYPES = """
BALANCE_CHARGE_SCHEDULES BALANCE_TRANSACTION_SCHEDULES BILL_JOBS COUNTERS COUNTER_ADJUSTMENTS COUNTER_PRICINGS
CREDIT_REASONS CURRENCIES DEBIT_REASONS EXTERNAL_MAPPINGS ORGANIZATION_CONFIG STATEMENT_DEFINITIONS
"""
"""Those that no export of m3ter has."""
FIELDS = 333
UNPUBLISHED = {"balance_transaction", "charge", "transaction_type"}
"""Exported by m3ter, and not on the page: there is nothing there to compare their columns with."""
UNPUBLISHED_KEYS = {
    ("balance_transaction", "balanceId"): "balance",
    ("balance_transaction", "transactionTypeId"): "transaction_type",
    ("charge", "accountId"): "account",
    ("charge", "billId"): "bill",
    ("charge", "accountingProductId"): "product",
    ("charge", "contractId"): "contract",
    ("charge", "scheduleId"): "balance_charge_schedule",
}

CALLED_OTHERWISE = {
    "parent account": "account",
    "billing plan": "plan",
    "credit type": "currency",
    "accounting product": "product",
    "standing charge accounting product": "product",
    "minimum spend accounting product": "product",
}
"""What the page calls an entity in the note of a foreign key."""
ONE_OF_SEVERAL = {"reason": [{"entities": ["credit_reason", "debit_reason"]}]}
"""What Table Schema has no foreign key for."""

CORRECTED_NAMES = {
    ("plan_template", "standingChargeDescription"): "standingChargeDescriptioon",
    ("pricing", "minimumSpendDescription"): "minimumSpend Description",
    ("pricing", "createdBy"): "createdby",
}
CORRECTED_TYPES = {
    ("account", "creditApplicationOrder"): ("string", "array"),
    ("aggregation", "defaultValue"): ("integer", "number"),
    ("aggregation", "deleted"): ("string", "boolean"),
    ("aggregation", "quantityPerUnit"): ("integer", "number"),
    ("bill", "version"): ("string", "integer"),
    ("compound_aggregation", "deleted"): ("string", "boolean"),
    ("compound_aggregation", "quantityPerUnit"): ("integer", "number"),
    ("pricing", "version"): ("boolean", "integer"),
}
LISTS_CALLED_OBJECTS = {
    ("aggregation", "segments"),
    ("aggregation", "segmentedFields"),
    ("balance", "productIds"),
    ("balance", "lineItemTypes"),
    ("bill_line_item", "bandUsage"),
    ("commitment", "productIds"),
    ("commitment", "lineItemTypes"),
}


@dataclass(frozen=True)
class PublishedField:
    name: str
    type: str
    note: str

    @property
    def column_type(self) -> str:
        if self.type.startswith("array of objects"):
            return "array"
        if self.type == "string" and self.note.lower().startswith("json object"):
            return "object"
        return {"float": "number", "double": "number"}.get(self.type, self.type)

    @property
    def refers_to(self) -> str | None:
        found = re.search(r"foreign key to ([a-z ]+)\)", self.note)
        return found[1] if found else None


def read_tables(text: str) -> dict[str, list[PublishedField]]:
    """The page's tables by title. A row ends with a bar; a cell may hold line ends."""
    _, *parts = re.split(r"^(.+)\n(?:Field Name|Column A) \| Data Type \| Notes \|\n---\|\n", text, flags=re.MULTILINE)
    tables = zip(parts[::2], parts[1::2], strict=True)
    return {title: [_field(row) for row in re.findall(r"[^|]+\|[^|]+\|[^|]*\|\n", rows)] for title, rows in tables}


def _field(row: str) -> PublishedField:
    name, type_, note = (cell.strip() for cell in row.split("|")[:3])
    return PublishedField(name, type_, note)


TABLES = read_tables(PUBLISHED.read_text(encoding="utf-8"))
DESCRIPTORS: dict[str, Any] = {name: json.loads(entity.table_schema) for name, entity in entities().items()}
ON_THE_PAGE = [name for name in operational_entities() if name not in UNPUBLISHED]


def published(entity: str) -> list[PublishedField]:
    return TABLES[DESCRIPTORS[entity]["m3ter:documented"]["title"]]


def pairs(entity: str) -> Iterator[tuple[PublishedField, dict[str, Any]]]:
    return zip(published(entity), DESCRIPTORS[entity]["fields"], strict=True)


def difference(theirs: PublishedField, ours: dict[str, Any]) -> dict[str, str]:
    """What a field has to say of the page where it says something else."""
    name = {} if ours["name"] == theirs.name else {"name": theirs.name}
    if ours["type"] == theirs.column_type:
        return name
    note = {"note": theirs.note} if theirs.column_type == "object" else {}
    return {**name, "type": theirs.type, **note}


def test_the_published_page_is_read_whole() -> None:
    assert len(TABLES) == 17
    assert sum(map(len, TABLES.values())) == FIELDS
    data_fields = next(field for field in TABLES["Meter"] if field.name == "dataFields")
    assert data_fields == PublishedField("dataFields", "array of objects:\ncategory; code; name; unit", "JSON")


def test_the_entities_have_these_names() -> None:
    assert list(operational_entities()) == NAMES.split()
    exported = operational_entities().values()
    assert [entity.operational_data_type for entity in exported] == OPERATIONAL_DATA_TYPES.split()
    others = [entity.operational_data_type for entity in entities().values() if entity.is_reference]
    assert others == REFERENCE_DATA_TYPES.split()
    assert len(entities()) == 20 + 12


def test_every_published_entity_has_one_descriptor() -> None:
    assert sorted(DESCRIPTORS[name]["m3ter:documented"]["title"] for name in ON_THE_PAGE) == sorted(TABLES)
    assert {name for name, one in DESCRIPTORS.items() if "m3ter:documented" not in one} == UNPUBLISHED | {
        name for name, entity in entities().items() if entity.is_reference
    }


@pytest.mark.parametrize("entity", ON_THE_PAGE)
def test_fields_and_their_order_are_the_published_ones(entity: str) -> None:
    names = [field.get("m3ter:documented", {}).get("name", field["name"]) for field in DESCRIPTORS[entity]["fields"]]
    assert names == [field.name for field in published(entity)]
    assert [column.name for column in entities()[entity].columns] == [f["name"] for f in DESCRIPTORS[entity]["fields"]]


@pytest.mark.parametrize("entity", ON_THE_PAGE)
def test_types_are_the_published_ones_or_the_difference_is_noted(entity: str) -> None:
    assert {ours["name"]: ours.get("m3ter:documented", {}) for _, ours in pairs(entity)} == {
        ours["name"]: difference(theirs, ours) for theirs, ours in pairs(entity)
    }


def test_only_these_names_are_corrected() -> None:
    found = {
        (entity, ours["name"]): theirs.name
        for entity in ON_THE_PAGE
        for theirs, ours in pairs(entity)
        if ours["name"] != theirs.name
    }
    assert found == CORRECTED_NAMES


def test_only_these_types_are_corrected() -> None:
    found = {
        (entity, ours["name"]): (theirs.column_type, ours["type"])
        for entity in ON_THE_PAGE
        for theirs, ours in pairs(entity)
        if ours["type"] != theirs.column_type
    }
    lists = dict.fromkeys(LISTS_CALLED_OBJECTS, ("object", "array"))
    assert found == CORRECTED_TYPES | lists


def test_a_number_documented_as_integer_is_written_without_a_needless_fraction() -> None:
    found = {(e.name, c.name) for e in entities().values() for c in e.columns if c.whole_without_fraction}
    assert found == {key for key, (theirs, ours) in CORRECTED_TYPES.items() if (theirs, ours) == ("integer", "number")}


@pytest.mark.parametrize("entity", ON_THE_PAGE)
def test_the_primary_key_is_the_published_one(entity: str) -> None:
    (key,) = [field.name for field in published(entity) if "primary key" in field.note]
    assert entities()[entity].primary_key == key
    assert entities()[entity].column(key).required
    assert entities()[entity].column(key).non_empty


@pytest.mark.parametrize("entity", ON_THE_PAGE)
def test_foreign_keys_are_the_published_ones(entity: str) -> None:
    noted = {field.name: field.refers_to for field in published(entity) if field.refers_to}
    keys = {n: CALLED_OTHERWISE.get(to, to.replace(" ", "_")) for n, to in noted.items() if to not in ONE_OF_SEVERAL}
    others = {name: ONE_OF_SEVERAL[to] for name, to in noted.items() if to in ONE_OF_SEVERAL}
    fields = DESCRIPTORS[entity]["fields"]
    assert {key.column: key.entity for key in entities()[entity].foreign_keys} == keys
    assert {f["name"]: f["m3ter:references"] for f in fields if "m3ter:references" in f} == others


def test_all_40_published_foreign_keys_lead_to_an_entity() -> None:
    noted = [field.refers_to for table in TABLES.values() for field in table if field.refers_to]
    references = [one for name in ON_THE_PAGE for one in entities()[name].references]
    assert len(noted) == len(references) == 40
    assert {name for one in references for name in one.to} <= entities().keys()
    assert sum(name in operational_entities() for one in references for name in one.to) == 36


def test_the_keys_of_entities_that_are_not_on_the_page() -> None:
    found = {(name, key.column): key.entity for name in UNPUBLISHED for key in entities()[name].foreign_keys}
    assert found == UNPUBLISHED_KEYS


def test_no_foreign_key_may_be_empty_text() -> None:
    keys = [(entity, key.column) for entity in entities().values() for key in entity.foreign_keys]
    assert [column for entity, column in keys if not entity.column(column).non_empty] == []


@pytest.mark.parametrize("entity", entities())
def test_a_descriptor_is_a_valid_table_schema(entity: str) -> None:
    report = Schema.validate_descriptor(DESCRIPTORS[entity])
    assert report.valid, report.flatten(["note"])


@pytest.mark.parametrize("entity", entities())
def test_foreign_keys_name_resources_as_a_data_package_does(entity: str) -> None:
    for key in DESCRIPTORS[entity].get("foreignKeys", []):
        resource = key["reference"]["resource"]
        assert resource == "" or resource.replace("-", "_") in entities()
        assert "_" not in resource
        assert key["reference"]["fields"] == "id"


@pytest.mark.parametrize("entity", entities().values(), ids=lambda entity: entity.name)
def test_no_row_is_deleted_and_every_column_is_described(entity: Entity) -> None:
    assert entity.column("deleted").constant is False
    assert entity.column("deleted").api_field is None
    assert [column.name for column in entity.columns if not column.description] == []
    assert entity.description


@pytest.mark.parametrize(
    ("entity", "column", "api_field"),
    [
        ("bill", "billingFrequencyInterval", "billFrequencyInterval"),
        ("bill_line_item", "referenceBillId", "referencedBillId"),
        ("bill_line_item", "referenceLineItemId", "referencedLineItemId"),
        ("account_plan", "modifiedBy", None),
        ("pricing", "createdBy", "createdBy"),
        ("pricing_band", "pricingId", None),
        ("pricing_band", "type", None),
    ],
)
def test_a_renamed_field_takes_its_value_from_the_api_field(entity: str, column: str, api_field: str | None) -> None:
    assert entities()[entity].column(column).api_field == api_field


def test_only_these_lists_have_pages_of_200() -> None:
    sizes = {entity.name: entity.listing.page_size for entity in entities().values()}
    assert {name for name, size in sizes.items() if size == 200} == {
        *("balance_charge_schedule", "balance_transaction", "balance_transaction_schedule", "charge", "counter"),
        *("counter_pricing", "plan_group", "product"),
    }
    assert {name for name, size in sizes.items() if size not in (100, 200)} == {"organization_config"}


def test_lists_are_asked_for_everything() -> None:
    assert entities()["bill"].listing.parameters == (("includeBillTotal", "true"), ("excludeLineItems", "true"))
    assert entities()["bill_line_item"].listing.path == "/lineitems"
    assert entities()["account_plan"].listing.parameters == (("includeall", "true"),)
    assert entities()["account_plan"].listing.for_each == ForEach("account", "account")
    assert {name: one.listing.parent for name, one in entities().items() if one.listing.parent} == {
        "account_plan": "account",
        "balance_charge_schedule": "balance",
        "balance_transaction": "balance",
        "balance_transaction_schedule": "balance",
        "bill_line_item": "bill",
        "counter_adjustment": "counter",
    }
    assert entities()["bill_line_item"].listing.of_parent("a/b") == Listing("/bills/a%2Fb/lineitems", 100)
    assert entities()["balance_transaction"].listing.of_parent("a/b") == Listing("/balances/a%2Fb/transactions", 200)
    assert entities()["transaction_type"].listing.parameters == (("archived", "true"),)


def test_the_owner_of_a_row_is_the_record_that_it_is_listed_with(tmp_path: Path) -> None:
    def list_per_account(descriptor: dict[str, Any]) -> None:
        descriptor["m3ter:api"] |= {"path": "/a/{id}/plans", "forEach": {"entity": "account", "field": "code"}}
        descriptor["foreignKeys"] = []

    assert {name: one.owner_column for name, one in entities().items() if one.owner_column} == {
        "account_plan": "accountId",
        "balance_charge_schedule": "balanceId",
        "balance_transaction": "balanceId",
        "balance_transaction_schedule": "balanceId",
        "bill_line_item": "billId",
        "counter_adjustment": "counterId",
        "pricing_band": "pricingId",
    }
    write_descriptors(tmp_path, "plan", list_per_account)
    assert load_entities(tmp_path)["plan"].owner_column == "code"


def test_pricings_and_their_bands_come_from_one_list() -> None:
    assert entities()["pricing"].listing == entities()["pricing_band"].listing
    assert entities()["pricing_band"].elements == (
        ("pricingBands", (("type", "STANDARD"),)),
        ("overagePricingBands", (("type", "OVERAGE"),)),
    )


@pytest.mark.parametrize(
    ("name", "entity"), [("bill", "bill"), ("BILLS", "bill"), ("PRICING", "pricing"), ("ACCOUNT_PLANS", "account_plan")]
)
def test_an_entity_is_found_by_its_name_and_by_m3ters(name: str, entity: str) -> None:
    assert find_entity(name).name == entity


@pytest.mark.parametrize("name", ["bils", "Bill", "", "ALL"])
def test_an_unknown_entity_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UnknownEntity) as refused:
        find_entity(name)
    message = str(refused.value)
    assert message.startswith(f"there is no entity {name!r}; known are ")
    for known in NAMES.split() + OPERATIONAL_DATA_TYPES.split() + REFERENCE_DATA_TYPES.split():
        assert known in message


def test_the_entity_that_was_probably_meant_is_suggested() -> None:
    with pytest.raises(UnknownEntity, match=r" Did you mean 'account'\?$"):
        find_entity("acount")


def give_ordinal_a_type(descriptor: dict[str, Any]) -> None:
    ordinal(descriptor)["type"] = "int"


def take_the_type_away(descriptor: dict[str, Any]) -> None:
    del ordinal(descriptor)["type"]


def ordinal(descriptor: dict[str, Any]) -> dict[str, Any]:
    return next(field for field in descriptor["fields"] if field["name"] == "ordinal")


def take_the_path_away(descriptor: dict[str, Any]) -> None:
    del descriptor["m3ter:api"]["path"]


def take_the_fields_away(descriptor: dict[str, Any]) -> None:
    del descriptor["fields"]


def refer_to_nothing(descriptor: dict[str, Any]) -> None:
    descriptor["foreignKeys"][0]["reference"]["resource"] = "plan-templates"


def list_per_nothing(descriptor: dict[str, Any]) -> None:
    descriptor["m3ter:api"]["perParent"] = {"entity": "accounts", "path": "/accounts/{id}/plans", "field": "account"}


def list_per_parent_without_a_path(descriptor: dict[str, Any]) -> None:
    descriptor["m3ter:api"]["perParent"] = {"entity": "account", "field": "account"}


def list_per_parent_unchanged_by_nothing(descriptor: dict[str, Any]) -> None:
    parent = {"entity": "account", "path": "/accounts/{id}/plans", "field": "account", "unchangedBy": ["etag"]}
    descriptor["m3ter:api"]["perParent"] = parent


def list_for_each_nothing(descriptor: dict[str, Any]) -> None:
    descriptor["m3ter:api"]["forEach"] = {"entity": "accounts", "parameter": "account"}


def list_for_each_in_no_way(descriptor: dict[str, Any]) -> None:
    descriptor["m3ter:api"]["forEach"] = {"entity": "account"}


def list_for_each_into_no_field(descriptor: dict[str, Any]) -> None:
    descriptor["m3ter:api"] |= {"path": "/accounts/{id}/plans", "forEach": {"entity": "account", "field": "owner"}}


def key_on_no_field(descriptor: dict[str, Any]) -> None:
    descriptor["primaryKey"] = "uuid"


def refer_where_no_field_is(descriptor: dict[str, Any]) -> None:
    ordinal(descriptor)["m3ter:references"] = [{"entities": ["product"], "where": {"kind": "PRODUCT"}}]


def refer_to_one_of_nothing(descriptor: dict[str, Any]) -> None:
    ordinal(descriptor)["m3ter:references"] = [{"entities": ["product", "products"]}]


def refer_from_no_field(descriptor: dict[str, Any]) -> None:
    descriptor["foreignKeys"][0]["fields"] = "templateId"


TYPES = "array, boolean, integer, number, object, string"
MISTAKES: list[tuple[Callable[[dict[str, Any]], None], str]] = [
    (give_ordinal_a_type, f"schemas/plan.json gives 'ordinal' the type 'int'; use one of {TYPES}."),
    (take_the_type_away, f"schemas/plan.json gives 'ordinal' the type None; use one of {TYPES}."),
    (take_the_path_away, "schemas/plan.json has no 'path'."),
    (take_the_fields_away, "schemas/plan.json has no 'fields'."),
    (refer_to_nothing, "schemas/plan.json refers to 'plan_templates'; there is no schemas/plan_templates.json."),
    (list_per_nothing, "schemas/plan.json refers to 'accounts'; there is no schemas/accounts.json."),
    (list_per_parent_without_a_path, "schemas/plan.json has no 'path'."),
    (
        list_per_parent_unchanged_by_nothing,
        "schemas/plan.json says unchangedBy 'etag', which is not among the fields of account.",
    ),
    (list_for_each_nothing, "schemas/plan.json refers to 'accounts'; there is no schemas/accounts.json."),
    (list_for_each_in_no_way, "schemas/plan.json has no 'parameter'."),
    (list_for_each_into_no_field, "schemas/plan.json has a key 'owner' that is not among its fields."),
    (key_on_no_field, "schemas/plan.json has a key 'uuid' that is not among its fields."),
    (refer_where_no_field_is, "schemas/plan.json has a key 'kind' that is not among its fields."),
    (refer_to_one_of_nothing, "schemas/plan.json refers to 'products'; there is no schemas/products.json."),
    (refer_from_no_field, "schemas/plan.json has a key 'templateId' that is not among its fields."),
]


@pytest.mark.parametrize(("spoil", "message"), MISTAKES, ids=lambda it: getattr(it, "__name__", ""))
def test_a_wrong_descriptor_is_named_with_its_mistake(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    write_descriptors(tmp_path, "plan", spoil)
    with pytest.raises(DescriptorError) as refused:
        load_entities(tmp_path)
    assert str(refused.value) == message


def test_text_that_is_not_json_is_named_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{\n  "title": "Plan",\n  oops\n}', encoding="utf-8")
    with pytest.raises(DescriptorError, match=r"schemas/plan\.json:3: not JSON: Expecting property name"):
        load_entities(tmp_path)


def test_a_folder_without_descriptors_is_named(tmp_path: Path) -> None:
    with pytest.raises(DescriptorError, match=f"{re.escape(str(tmp_path))} holds no descriptor; it should hold one"):
        load_entities(tmp_path)


def test_a_new_entity_is_one_new_file(tmp_path: Path) -> None:
    def rename(descriptor: dict[str, Any]) -> None:
        descriptor["m3ter:operationalDataType"] = "VOUCHERS"
        descriptor["m3ter:api"]["path"] = "/vouchers"

    write_descriptors(tmp_path, "voucher", rename, source="plan")
    loaded = load_entities(tmp_path)
    assert loaded.keys() == {*entities(), "voucher"}
    assert loaded["voucher"].listing.path == "/vouchers"


def write_descriptors(
    folder: Path, name: str, spoil: Callable[[dict[str, Any]], None], *, source: str | None = None
) -> None:
    """The project's descriptors, with `name` a changed copy of `source` (by default of itself)."""
    for entity, descriptor in DESCRIPTORS.items():
        (folder / f"{entity}.json").write_text(json.dumps(descriptor), encoding="utf-8")
    changed = json.loads(json.dumps(DESCRIPTORS[source or name]))
    spoil(changed)
    (folder / f"{name}.json").write_text(json.dumps(changed), encoding="utf-8")
