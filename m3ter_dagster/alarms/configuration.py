"""A sensor that reports an exports.yaml that cannot be loaded, and that it can be again."""

from __future__ import annotations

import json

import dagster as dg

from m3ter_dagster.alarms import messages
from m3ter_dagster.alarms.webhook import Notify
from m3ter_dagster.config import Unloadable
from m3ter_dagster.config.names import BROKEN_CONFIGURATION
from m3ter_dagster.names import DEFAULT, Names

LOOK_EVERY_SECONDS = 60
NOTHING = "[]"
"""The cursor where no mistake was reported; Dagster keeps the last one instead of an empty one."""


def broken_configuration(unloadable: Unloadable | None, notify: Notify, names: Names = DEFAULT) -> dg.SensorDefinition:
    """Reports each set of mistakes once, and once that they are gone. What the webhook did not take is sent again."""
    mistakes = json.dumps(unloadable.mistakes if unloadable else [])

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        reported = context.cursor or NOTHING
        text = messages.unloadable(unloadable) if unloadable else messages.LOADABLE_AGAIN
        failure = notify(context.log, text) if mistakes != reported else None
        found = str(unloadable) if unloadable else "exports.yaml can be loaded."
        return dg.SensorResult(skip_reason=failure or found, cursor=reported if failure else mistakes)

    return dg.SensorDefinition(
        name=names.own(BROKEN_CONFIGURATION),
        evaluation_fn=evaluate,
        minimum_interval_seconds=LOOK_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Notifies the webhook when exports.yaml cannot be loaded, and when it can be again.",
    )
