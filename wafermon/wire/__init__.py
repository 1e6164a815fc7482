"""Bytes <-> messages: lines, hello. Pure."""
