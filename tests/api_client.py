"""A client of the sandbox's API."""

from __future__ import annotations

from typing import Any

import urllib3

from m3ter_sandbox import SandboxApi


class Client:
    """A client without any convenience: what it gets is what the sandbox answered."""

    def __init__(self, api: SandboxApi) -> None:
        self.api = api
        self.http = urllib3.PoolManager(retries=False)
        self.bearer = f"Bearer {self.token().json()['access_token']}"

    def token(self, key: str = "sandbox-key", secret: str = "sandbox-secret", **body: Any) -> urllib3.BaseHTTPResponse:
        headers = urllib3.make_headers(basic_auth=f"{key}:{secret}")
        body = body or {"json": {"grant_type": "client_credentials"}}
        return self.http.request("POST", f"{self.api.base_url}/oauth/token", headers=headers, **body)

    def get(self, path: str, *, headers: dict[str, str] | None = None, **query: Any) -> urllib3.BaseHTTPResponse:
        url = f"{self.api.base_url}/organizations/{self.api.organization_id}{path}"
        return self.http.request("GET", url, fields=query, headers={"Authorization": self.bearer} | (headers or {}))

    def post(self, path: str, body: dict[str, Any]) -> urllib3.BaseHTTPResponse:
        url = f"{self.api.base_url}/organizations/{self.api.organization_id}{path}"
        return self.http.request("POST", url, json=body, headers={"Authorization": self.bearer})

    def walk(self, path: str, **query: Any) -> list[dict[str, Any]]:
        answer = self.get(path, **query).json()
        rows = list(answer["data"])
        while token := answer.get("nextToken"):
            answer = self.get(path, nextToken=token, **query).json()
            rows += answer["data"]
        return rows
