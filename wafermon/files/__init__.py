"""Durable files: one place for write, sync, rename, unlink, truncate and directories."""
