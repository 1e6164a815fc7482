"""Rules -> a compiled table that says which backends a message goes to. Pure: no I/O, no clock."""

from wafermon.routing.rules import APART, Rule, only_apart, parse_match, with_apart
from wafermon.routing.table import NO_ROUTE, Route, Table, compile_routes, load

__all__ = [
    "APART",
    "NO_ROUTE",
    "Route",
    "Rule",
    "Table",
    "compile_routes",
    "load",
    "only_apart",
    "parse_match",
    "with_apart",
]
