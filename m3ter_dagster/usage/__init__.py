"""Measurements: selection, columns, requests, jobs, rows."""
