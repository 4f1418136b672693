"""What a finance engineer writes in an afternoon: three lists, one after the other, to three CSV files.

No retries, no checks, no types: `python script.py BASE_URL ORGANIZATION_ID FOLDER`
"""

import csv
import http.client
import json
import sys
from base64 import b64encode
from pathlib import Path
from urllib.parse import urlencode, urlsplit

try:
    from orjson import dumps, loads
except ImportError:
    from json import dumps, loads

SCHEMAS = Path(__file__).parents[2] / "schemas"
LISTS = {
    "account": ("/accounts", {}),
    "bill": ("/bills", {"includeBillTotal": "true", "excludeLineItems": "true"}),
    "bill_line_item": ("/lineitems", {}),
}


def token(connection):
    key = b64encode(b"key:secret").decode()
    headers = {"Authorization": f"Basic {key}", "Content-Type": "application/json"}
    connection.request("POST", "/oauth/token", '{"grant_type":"client_credentials"}', headers)
    return loads(connection.getresponse().read())["access_token"]


def rows_of(connection, headers, path, parameters):
    cursor = None
    while True:
        query = {"pageSize": 100, **parameters, **({"nextToken": cursor} if cursor else {})}
        connection.request("GET", f"{path}?{urlencode(query)}", headers=headers)
        page = loads(connection.getresponse().read())
        yield from page["data"]
        cursor = page.get("nextToken")
        if not cursor:
            return


def cell(value):
    if isinstance(value, dict | list):
        text = dumps(value)
        return text if isinstance(text, str) else text.decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def export(connection, headers, organization, folder):
    for name, (path, parameters) in LISTS.items():
        fields = json.loads((SCHEMAS / f"{name}.json").read_text())["fields"]
        columns = [field.get("m3ter:api", field["name"]) for field in fields]
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(field["name"] for field in fields)
            for row in rows_of(connection, headers, f"/organizations/{organization}{path}", parameters):
                writer.writerow([cell(row.get(column)) for column in columns])


if __name__ == "__main__":
    base_url, organization, folder = sys.argv[1:]
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc)
    headers = {"Authorization": f"Bearer {token(connection)}"}
    export(connection, headers, organization, Path(folder))
