"""wafermon: a monitoring sidecar for applications written in several languages."""

__version__ = "2.0.0"
