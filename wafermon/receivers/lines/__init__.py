"""Connections: lines in, acknowledgements out. See docs/protocol.md."""
