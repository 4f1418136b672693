"""m3ter's Operational Data Export as a Dagster project."""
