"""Delivers whole files to the stores of Export Destinations, and fetches them back. No Dagster, no m3ter."""
