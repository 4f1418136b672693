"""A whole entity: lists side by side, read ahead, parent by parent, or reused; spool."""
