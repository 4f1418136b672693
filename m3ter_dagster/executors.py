"""Which of Dagster's executors runs the steps of this project; in another's, that one says."""

from __future__ import annotations

import warnings
from typing import Any

import dagster as dg

from m3ter_dagster.config.settings import Executor

_FORKED = {"forkserver": {"preload_modules": ["m3ter_dagster.definitions"]}}
"""Processes have imported this project when they begin; else each would, for two seconds of CPU time."""


def executor_named(name: Executor) -> dg.ExecutorDefinition:
    """The executor, which the config of a run may configure; those of extras are imported only when they are chosen."""
    if name == "celery":
        from dagster_celery import celery_executor

        # Dagster registers its task anew for each step.
        warnings.filterwarnings("ignore", "Task name 'execute_plan' is already registered")
        return celery_executor
    if name == "k8s":
        from dagster_k8s import k8s_job_executor

        return k8s_job_executor
    return dg.in_process_executor if name == "in_process" else multiprocess


@dg.configured(dg.multiprocess_executor, config_schema=dg.multiprocess_executor.config_schema.as_field())
def multiprocess(config: dict[str, Any]) -> dict[str, Any]:
    return {"start_method": _FORKED, **config}
