"""Dagster resources: the Organization, the IO manager."""
