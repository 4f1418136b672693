"""Page bytes to typed polars frames, their validation, and their CSV. Pure: no Dagster, no network."""
