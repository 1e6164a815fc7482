"""What is known of jobs and traces, live and stored, in one set of shapes. See docs/architecture.md."""

from wafermon.query.answers import QUESTIONS, NotThere, Unavailable, answer
from wafermon.query.live import Live
from wafermon.query.query import BadQuestion, Query

__all__ = ["QUESTIONS", "BadQuestion", "Live", "NotThere", "Query", "Unavailable", "answer"]
