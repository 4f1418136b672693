"""The demo: the sample organization exported as a real one would be, and the delivered files copied to a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import boto3

from m3ter_dagster.cli.export import run_export
from m3ter_dagster.config import load_exports
from m3ter_dagster.model.entities import entities
from m3ter_sandbox import Sandbox


def run_demo(accounts: int, output: str) -> int:
    with Sandbox(accounts=accounts) as sandbox:
        os.environ.update(sandbox.environment)
        exports = load_exports()
        print(f"Sample organization of {accounts} accounts at {sandbox.api.base_url}, S3 at {sandbox.s3.endpoint_url}")
        code = run_export(list(entities()), list(exports.default_destinations))
        if code == 0:
            buckets = [exports.destination(one).bucket_name for one in exports.default_destinations]
            count = _copy(sandbox.s3.endpoint_url, buckets, Path(output))
            print(f"{count} delivered files are copied to {output}/")
    return code


def _copy(endpoint_url: str, buckets: list[str], output: Path) -> int:
    shutil.rmtree(output, ignore_errors=True)
    client = boto3.client("s3", endpoint_url=endpoint_url)
    count = 0
    for bucket in buckets:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for listed in page.get("Contents", []):
                path = output / bucket / listed["Key"]
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, listed["Key"], str(path))
                count += 1
    return count
