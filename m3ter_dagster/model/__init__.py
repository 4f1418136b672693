"""Entities, cadence, time periods, an export and its keys, its manifest. The standard library only."""
