"""Whether a delivered export is what its manifest says. Needs the bucket alone: neither Dagster nor m3ter."""
