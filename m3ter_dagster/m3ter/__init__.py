"""m3ter's API: requests (token, pace, retries), lists, data exports, downloads. No Dagster, no polars, no stores."""
