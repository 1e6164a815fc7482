"""Which backends a message goes to."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from wafermon.model.errors import ConfigError
from wafermon.model.messages import LEVELS
from wafermon.routing import NO_ROUTE, Route, Rule, Table, compile_routes, load, parse_match
from wafermon.routing.rules import TYPES
from wafermon.routing.table import CACHE_SIZE

BACKENDS = ("db", "files", "hot")
SIGNS = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}

names = st.text("ab-*?[]!.", min_size=1, max_size=4)
globs = st.lists(names, max_size=3).map(tuple)
level_globs = st.lists(
    st.one_of(
        st.sampled_from(["*", "e*", "[cd]*", *LEVELS]),
        st.builds("{}{}".format, st.sampled_from(list(SIGNS)), st.sampled_from(LEVELS)),
    ),
    max_size=2,
).map(tuple)
type_globs = st.lists(st.sampled_from(["*", "span_*", "?e*", *TYPES]), max_size=2).map(tuple)
destinations = st.lists(st.sampled_from(BACKENDS), max_size=3).map(tuple)
rules = st.builds(Rule, to=destinations, service=globs, type=type_globs, level=level_globs, host=globs)
tables = st.lists(rules, max_size=5)
messages = st.tuples(
    names,
    st.sampled_from(TYPES),
    st.one_of(st.sampled_from(LEVELS), st.sampled_from([UNSET, None, ""])),
    st.one_of(names, st.sampled_from([UNSET, None, ""])),
)


def naive(rules: list[Rule], service: str, type: str, level: object, host: object) -> set[str] | None:
    """The rules read as the manual says them."""

    def level_fits(glob: str) -> bool:
        sign = glob.rstrip("abcdefghijklmnopqrstuvwxyz*[]")
        if sign in SIGNS:
            return SIGNS[sign](LEVELS.index(level), LEVELS.index(glob[len(sign) :]))  # type: ignore[no-any-return]
        return fnmatchcase(level, glob)  # type: ignore[type-var]

    for rule in rules:
        if rule.service and not any(fnmatchcase(service, glob) for glob in rule.service):
            continue
        if rule.type and not any(fnmatchcase(type, glob) for glob in rule.type):
            continue
        if type == "stats" and "stats" not in rule.type:
            continue
        if rule.level and not (level and any(map(level_fits, rule.level))):
            continue
        if rule.host and not (host and any(fnmatchcase(host, glob) for glob in rule.host)):  # type: ignore[type-var]
            continue
        return set(rule.to)
    return None


@given(tables, st.lists(messages, min_size=1, max_size=20))
def test_a_table_does_what_its_rules_say(rules: list[Rule], messages: list[tuple[str, str, object, object]]) -> None:
    table = compile_routes(rules, BACKENDS)
    for fields in messages * 2:  # the second time from memory
        expected = naive(rules, *fields)
        route = table.route(*fields)
        assert (route is NO_ROUTE) == (expected is None)
        assert route.backends == tuple(sorted(expected or ()))
        assert route.matched == (expected is not None)


@given(tables, messages)
def test_equal_routes_are_one_object(rules: list[Rule], fields: tuple[str, str, object, object]) -> None:
    table = compile_routes([Rule(("db", "files"), service=("\n",)), *rules, Rule(("files", "db", "files"))], BACKENDS)
    route = table.route(*fields)
    both = table.route("\n", "event", "info", UNSET)
    assert both == Route(("db", "files"))
    assert (route == both) == (route is both)


@given(tables)
def test_a_table_outlives_the_journal(rules: list[Rule]) -> None:
    table = compile_routes(rules, BACKENDS)
    text = table.dump()
    assert "\n" not in text
    json.loads(text)
    again = load(text)
    assert again == table
    assert hash(again) == hash(table)
    assert again.dump() == text
    assert again.backends == table.backends == {name for rule in rules for name in rule.to}
    assert load(text.encode()) == table


def test_tables_with_other_rules_differ() -> None:
    table = Table([Rule(("db",))])
    assert table != Table([Rule(("files",))])
    assert table != Table([Rule(("db",), service=("a",))])
    assert table != "Table"


@pytest.mark.parametrize(
    "text",
    ["", "7", "{}", '{"rules":7}', '{"rules":[7]}', '{"rules":[{"to":"db"}]}', '{"rules":[{"to":[7]}]}',
     '{"rules":[{"service":[]}]}', '{"rules":[{"to":[],"colour":[]}]}'],
)  # fmt: skip
def test_what_is_no_table_does_not_load(text: str) -> None:
    with pytest.raises(ValueError):
        load(text)


def test_a_route_names_backends_that_exist() -> None:
    with pytest.raises(ValueError, match=r"^no such backend: db, files$"):
        compile_routes([Rule(("files", "db", "hot"))], ["hot"])


def test_discarding_on_purpose_is_a_route() -> None:
    table = compile_routes([Rule((), type=("resource",)), Rule(("db",), type=("event",))], BACKENDS)
    assert table.route("a", "resource", UNSET, UNSET) == Route(())
    assert table.route("a", "resource", UNSET, UNSET) is not NO_ROUTE
    assert table.route("a", "metric", UNSET, UNSET) is NO_ROUTE
    assert Route(()) != NO_ROUTE


def test_the_sidecars_own_messages_are_routed_like_any_other() -> None:
    table = compile_routes([Rule(("db",), service=("wafermon",), type=("trace",)), Rule(("files",))], BACKENDS)
    assert table.route("wafermon", "trace", UNSET, UNSET).backends == ("db",)
    assert table.route("wafermon", "event", "warning", UNSET).backends == ("files",)


def test_upper_and_lower_case_differ() -> None:
    table = compile_routes([Rule(("db",), service=("Queue*",))], BACKENDS)
    assert table.route("Queue-1", "event", "info", UNSET).backends == ("db",)
    assert table.route("queue-1", "event", "info", UNSET) is NO_ROUTE


def test_what_a_table_remembers_is_bounded() -> None:
    table = compile_routes([Rule(("db",), service=("a*",)), Rule(("files",))], BACKENDS)
    for number in range(CACHE_SIZE + 10):
        assert table.route(f"s{number}", "event", "info", UNSET).backends == ("files",)
    assert 0 < len(table._known) <= CACHE_SIZE
    assert table.route("a1", "event", "info", UNSET).backends == ("db",)


def test_a_match_is_globs_or_lists_of_them() -> None:
    assert parse_match({}) == {}
    assert parse_match({"service": "a*", "type": ["metric", "span_*"], "level": ">= error", "host": ["h"]}) == {
        "service": ("a*",),
        "type": ("metric", "span_*"),
        "level": (">= error",),
        "host": ("h",),
    }


def test_every_fault_of_a_match_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_match(
            {"colour": "red", "service": [], "host": 7, "type": ["event", "metrics"], "level": [">=warn", "loud*"]}
        )
    types = "event, metric, progress, resource, span_start, span_end, stats, trace"
    levels = "debug, info, warning, error, critical, compared as in '>=warning'"
    assert list(map(str, caught.value.faults)) == [
        "colour: a message can't be matched by this; expected one of service, type, level, host",
        "service: expected a glob in quotes or a list of such globs, got an empty list",
        "host: expected a glob in quotes or a list of such globs, got 7",
        f"type: 'metrics' matches no type; the types are {types}",
        f"level: '>=warn' matches no level; the levels are {levels}",
        f"level: 'loud*' matches no level; the levels are {levels}",
    ]


@pytest.mark.parametrize(
    ("rule", "catches"),
    [
        (Rule(("db",)), True),
        (Rule(()), True),
        (Rule(("db",), service=("*",), type=("event", "*")), True),
        (Rule(("db",), service=("a*",)), False),
        (Rule(("db",), level=("*",)), False),
        (Rule(("db",), host=("*",)), False),
    ],
)
def test_what_catches_all(rule: Rule, catches: bool) -> None:
    assert rule.catches_all is catches
    table = compile_routes([rule], BACKENDS)
    assert (table.route("s", "metric", UNSET, UNSET) is not NO_ROUTE) is catches


def stats_go(rules: list[Rule]) -> object:
    return Table(rules).route("s", "stats", "", "h")


@pytest.mark.parametrize("rule", [
    Rule(("db",)), Rule(("db",), type=("*",)), Rule(("db",), type=("st*", "event")), Rule(("db",), service=("s",)),
])  # fmt: skip
def test_no_rule_takes_stats_but_one_that_names_them(rule: Rule) -> None:
    assert stats_go([rule]) is NO_ROUTE
    assert stats_go([rule, Rule(("files",), type=("stats",))]) == Route(("files",))
    assert stats_go([Rule(("files",), type=("event", "stats")), rule]) == Route(("files",))


@given(tables, messages, st.sampled_from(["", *BACKENDS]), st.sampled_from(BACKENDS))
def test_what_is_said_of_a_kind_is_what_its_route_says(
    rules: list[Rule], message: tuple[str, str, object, object], replay_to: str, backend: str
) -> None:
    table, kind = Table(rules), (*message, replay_to or UNSET)
    route = table.route(*message)
    for _ in range(2):
        assert table.going(backend)(kind) == (replay_to == backend if replay_to else backend in route.backends)
        assert table.lost(kind) == (not replay_to and message[1] != "stats" and route is NO_ROUTE)
        assert table.ways(frozenset([kind])) == {
            None if table.lost(kind) else (replay_to,) if replay_to else route.backends
        }


@given(tables, st.lists(messages, min_size=1, max_size=8))
def test_the_ways_of_many_kinds_are_those_of_each(
    rules: list[Rule], many: list[tuple[str, str, object, object]]
) -> None:
    table, kinds = Table(rules), frozenset((*message, UNSET) for message in many)
    ways = table.ways(kinds)
    assert ways == frozenset().union(*(Table(rules).ways(frozenset([kind])) for kind in kinds))
    assert (None in ways) == any(map(table.lost, kinds))
    for backend in BACKENDS:
        goes = {way is not None and backend in way for way in ways}
        assert (False not in goes) == all(map(table.going(backend), kinds))
        assert (True in goes) == any(map(table.going(backend), kinds))


def test_no_more_blocks_are_remembered_than_follow_each_other() -> None:
    table = Table([Rule(("db",), service=("s1*",)), Rule(("files",))])
    for number in range(300):
        kinds = frozenset({(f"s{number}", "event", "info", "h", UNSET)})
        assert table.ways(kinds) == {("db",) if str(number).startswith("1") else ("files",)}
    assert len(table._ways) <= 64
