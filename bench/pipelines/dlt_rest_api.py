"""dlt as its documentation shows it: a rest_api source, a filesystem destination, CSV.

`python dlt_rest_api.py BASE_URL ORGANIZATION_ID FOLDER`
"""

import sys

import dlt
from dlt.sources.rest_api import rest_api_source

LISTS = {
    "account": ("accounts", {}),
    "bill": ("bills", {"includeBillTotal": "true", "excludeLineItems": "true"}),
    "bill_line_item": ("lineitems", {}),
}


def source(base_url, organization):
    return rest_api_source(
        {
            "client": {
                "base_url": f"{base_url}/organizations/{organization}/",
                "auth": {"type": "bearer", "token": "benchmark"},
                "paginator": {"type": "cursor", "cursor_path": "nextToken", "cursor_param": "nextToken"},
            },
            # One level of rows: bandUsage and the like stay JSON, as in the other exports.
            "resource_defaults": {"max_table_nesting": 0, "write_disposition": "replace"},
            "resources": [
                {
                    "name": name,
                    "endpoint": {"path": path, "params": {"pageSize": 100, **parameters}, "data_selector": "data"},
                }
                for name, (path, parameters) in LISTS.items()
            ],
        }
    )


if __name__ == "__main__":
    base_url, organization, folder = sys.argv[1:]
    pipeline = dlt.pipeline(
        "m3ter",
        pipelines_dir=f"{folder}/work",
        destination=dlt.destinations.filesystem(f"file://{folder}"),
        dataset_name="m3ter",
    )
    pipeline.run(source(base_url, organization), loader_file_format="csv")
