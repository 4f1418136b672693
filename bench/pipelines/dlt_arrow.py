"""dlt's fast way: pages become Arrow tables, which dlt passes on without looking at their rows; CSV files.

`python dlt_arrow.py BASE_URL ORGANIZATION_ID FOLDER`
"""

import json
import sys
from pathlib import Path

import dlt
import orjson
import pyarrow as pa
from dlt.sources.helpers.rest_client import RESTClient
from dlt.sources.helpers.rest_client.auth import BearerTokenAuth
from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator

LISTS = {
    "account": ("accounts", {}),
    "bill": ("bills", {"includeBillTotal": "true", "excludeLineItems": "true"}),
    "bill_line_item": ("lineitems", {}),
}
TYPES = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}
SCHEMAS = Path(__file__).parents[2] / "schemas"


def resource(client, name, path, parameters):
    fields = json.loads((SCHEMAS / f"{name}.json").read_text())["fields"]
    schema = pa.schema(
        [(field.get("m3ter:api", field["name"]), TYPES.get(field["type"], pa.string())) for field in fields]
    )
    nested = [field["name"] for field in fields if field["type"] in ("array", "object")]

    def tables():
        for page in client.paginate(path, params={"pageSize": 100, **parameters}, data_selector="$"):
            rows = page[0]["data"]
            for row in rows:
                for column in nested:
                    if row.get(column) is not None:
                        row[column] = orjson.dumps(row[column]).decode()
            yield pa.Table.from_pylist(rows, schema=schema)

    return dlt.resource(tables, name=name, write_disposition="replace")


if __name__ == "__main__":
    base_url, organization, folder = sys.argv[1:]
    client = RESTClient(
        f"{base_url}/organizations/{organization}/",
        auth=BearerTokenAuth("benchmark"),
        paginator=JSONResponseCursorPaginator(cursor_path="nextToken", cursor_param="nextToken"),
    )
    pipeline = dlt.pipeline(
        "m3ter",
        pipelines_dir=f"{folder}/work",
        destination=dlt.destinations.filesystem(f"file://{folder}"),
        dataset_name="m3ter",
    )
    pipeline.run([resource(client, name, *LISTS[name]) for name in LISTS], loader_file_format="csv")
