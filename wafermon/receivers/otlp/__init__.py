"""OTLP over HTTP in, as lines into the journal. See docs/otlp.md."""
