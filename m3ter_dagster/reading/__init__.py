"""A whole entity: lists side by side, fan-out, spool."""
