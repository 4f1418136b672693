"""The least that reading takes: bodies fetched, or fetched and parsed, and nothing kept.

`python floor.py fetch|parse BASE_URL ORGANIZATION_ID FOLDER`
"""

import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

try:
    from orjson import loads
except ImportError:
    from json import loads

LISTS = {"account": "/accounts?", "bill": "/bills?", "bill_line_item": "/lineitems?"}


def fetched(body):
    """The number of rows, and the token without parsing the page: m3ter puts it last."""
    token = body[body.rindex(b'"nextToken":') + len('"nextToken":') : -1]
    return body.count(b'"dtCreated":'), None if token == b"null" else token.strip(b'"').decode()


def parsed(body):
    page = loads(body)
    return len(page["data"]), page["nextToken"]


def rows_in(connection, path, read):
    found, cursor = 0, None
    while True:
        connection.request("GET", f"{path}pageSize=100" + (f"&nextToken={cursor}" if cursor else ""))
        rows, cursor = read(connection.getresponse().read())
        found += rows
        if not cursor:
            return found


if __name__ == "__main__":
    way, base_url, organization, folder = sys.argv[1:]
    connection = HTTPConnection(urlsplit(base_url).netloc)
    for name, path in LISTS.items():
        rows = rows_in(connection, f"/organizations/{organization}{path}", {"fetch": fetched, "parse": parsed}[way])
        (Path(folder) / f"{name}.count").write_text(str(rows))
