"""Spans of OpenTelemetry: of an export, its lists and its deliveries."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from m3ter_dagster import telemetry
from m3ter_dagster.config import load_exports, load_settings
from m3ter_dagster.definitions import build_definitions
from m3ter_dagster.history.log import MANIFEST
from m3ter_sandbox import Sandbox


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Those of this test: a provider can be set only once for a whole process."""
    found, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(found))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield found
    provider.shutdown()


def attributes(span: ReadableSpan) -> dict[str, object]:
    return dict(span.attributes or {})


def test_an_export_has_a_span_with_one_per_list_and_one_per_delivery(
    spans: InMemorySpanExporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Sandbox(2, folder=tmp_path, requests_per_second=None) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        job = build_definitions(load_exports(), load_settings()).resolve_implicit_global_asset_job_def()
        with dg.DagsterInstance.ephemeral() as instance:
            keys = [dg.AssetKey(name) for name in ("product", MANIFEST)]
            run = job.execute_in_process(instance=instance, asset_selection=keys)
        asked = len(sandbox.api.requests)
    found = spans.get_finished_spans()
    (export,) = [one for one in found if one.name == "m3ter.export"]
    (listing,) = [one for one in found if one.name == "m3ter.list"]
    deliveries = [one for one in found if one.name == "m3ter.delivery"]
    assert export.context
    assert {one.parent and one.parent.span_id for one in (listing, *deliveries)} == {export.context.span_id}
    said = attributes(export)
    assert (said["m3ter.run"], said["m3ter.requests"], said["m3ter.retries"]) == (run.run_id, asked, 0)
    assert attributes(listing)["m3ter.entity"] == ("product",)
    assert (attributes(listing)["m3ter.rows"], attributes(listing)["m3ter.requests"]) == (5, 1)
    assert {attributes(one)["m3ter.entity"] for one in deliveries} == {"product", "manifest"}
    assert all(attributes(one)["m3ter.destination"] and attributes(one)["m3ter.bytes"] for one in deliveries)


def test_of_an_error_a_span_has_the_kind_and_no_words(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError), telemetry.span("m3ter.list"):
        raise ValueError("row a, column emailAddress, value lovelace@example.com")
    (failed,) = spans.get_finished_spans()
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert attributes(failed) == {"error.type": "ValueError"}
    assert "lovelace" not in failed.to_json()


WITHOUT = """
import sys
sys.modules["opentelemetry"] = None
from m3ter_dagster import telemetry
with telemetry.span("m3ter.list", telemetry.here(), entity="bill") as span:
    span.set(rows=1)
    span.failed(ValueError())
"""


def test_without_the_package_nothing_happens() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT], check=True, timeout=60)
