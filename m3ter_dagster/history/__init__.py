"""What was delivered and how runs went: the only reader and writer of Dagster's log."""
