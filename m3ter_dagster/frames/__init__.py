"""Page bytes to typed polars frames, their validation, and the files that hold them. Pure: no Dagster, no network."""
