"""Files to the stores of Export Destinations, whole, and back from there. No Dagster, no m3ter."""
