"""What is expected of jobs and services, and whether it happens. Pure; the clock is handed in. See docs/schedules.md.

`Schedules` is a part of the engine: it is told of the same groups in the same order, is snapshotted with it, and hands it the
events that are to be journalled.
"""

from wafermon.correlation.schedules.rules import Rule, rule_of, rules_of
from wafermon.correlation.schedules.schedules import Schedules

__all__ = ["Rule", "Schedules", "rule_of", "rules_of"]
