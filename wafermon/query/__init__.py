"""What is known of jobs and traces, in one set of shapes. See docs/architecture.md."""

from wafermon.query.kept import kept_receipt
from wafermon.query.live import Live

__all__ = ["Live", "kept_receipt"]
