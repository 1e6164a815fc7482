"""A YAML file -> plain values with the environment's variables filled in, and the line that each key stands on.

The scalars are those of YAML 1.2: `on`, `off`, `yes` and `no` are text, and a number has no octal or base-60 reading.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from wafermon.model.checking import Path, dotted
from wafermon.model.errors import Fault


@dataclass
class Source:
    """One file: what it says, where it says it, and what is wrong with it so far."""

    file: str
    value: Any = field(default_factory=dict)
    """Mappings (keys are always str), lists, str, int, float and bool; None where a fault stands."""
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """The 1-based line of a key, or of the nearest key around it; 0 where there is none."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def fault(self, path: Path, problem: str) -> None:
        """Note what is wrong at `path`, unless something is already."""
        while path and not isinstance(self.at(path[:-1]), (dict, list)):
            path = path[:-1]
        name = dotted(path)
        if not path or all(known.path != name for known in self.faults):
            self.faults.append(Fault(name, problem, self.file, self.line(path)))

    def at(self, path: Path) -> Any:
        """The value at `path`; an empty mapping where there is none."""
        value = self.value
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return {}
        return value


def read(data: bytes, file: str, environ: Mapping[str, str]) -> Source:
    """The content of a file -> what it says; never raises. `file` is its name in the faults."""
    source = Source(file, lines={(): 1})
    try:
        node = _compose(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        source.lines[()] = data.count(b"\n", 0, error.start) + 1
        source.fault((), f"not UTF-8: byte {error.object[error.start]:#04x}; save the file as UTF-8")
    except yaml.reader.ReaderError as error:
        source.lines[()] = data.decode("utf-8-sig").count("\n", 0, error.position) + 1
        source.fault((), "not YAML: a control character; remove it")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        source.lines[()] = mark.line + 1 if mark else 0
        source.fault((), f"not YAML: {_problem(error)}")
    except RecursionError:
        source.fault((), _TOO_DEEP)
    else:
        if node is not None:
            _Reader(source, environ).read(node)
    return source


class _QuickLoader(getattr(yaml, "CBaseLoader", yaml.BaseLoader)):  # type: ignore[misc]
    """Without a look at what a plain scalar might be: all are text."""

    def resolve(self, kind: type[yaml.Node], value: str, implicit: object) -> str:
        return _KINDS[kind]


def _compose(text: str) -> yaml.Node | None:
    """The document's nodes: by libyaml, which is ten times faster, where it is there and the text is good; what is wrong is told by
    Python's own parser, in words that do not depend on the machine. libyaml works by recursion in C, so it gets nothing deep."""
    if yaml.__with_libyaml__ and not _may_be_deep(text):
        try:
            return yaml.compose(text, Loader=_QuickLoader)
        except yaml.YAMLError:
            pass
    return yaml.compose(text, Loader=yaml.BaseLoader)


def _may_be_deep(text: str) -> bool:
    if _DEEP_LINE.search(text):
        return True
    depth = 0
    for bracket in _NO_BRACKET.sub("", text):
        depth += 1 if bracket in "[{" else -1
        if depth > _MANY:
            return True
    return False


_KINDS: dict[type[yaml.Node], str] = {
    yaml.ScalarNode: "tag:yaml.org,2002:str",
    yaml.SequenceNode: "tag:yaml.org,2002:seq",
    yaml.MappingNode: "tag:yaml.org,2002:map",
}
_MANY = 200
_NO_BRACKET = re.compile(r"[^\[\]{}]+")
_DEEP_LINE = re.compile(rf"^(?: {{{_MANY}}}|(?: *[-?:] ){{{_MANY}}})", re.MULTILINE)
_TOO_DEEP = f"nested deeper than a config has any use for; nest at most {(_DEPTH := 32)} deep"
_NODES = 500_000
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_INTEGER = re.compile(r"[-+]?[0-9]{1,30}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,30}|[0-9]{1,30}(?:\.[0-9]{0,30})?)(?:[eE][-+]?[0-9]{1,3})?")
_BOOLEANS = {text: text.lower() == "true" for text in ("true", "True", "TRUE", "false", "False", "FALSE")}
_NULLS = ("", "~", "null", "Null", "NULL")
_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "seq", "map"))


def _problem(error: yaml.MarkedYAMLError) -> str:
    """What the parser says on several lines, on one; and what may help."""
    problem = error.problem or "it can't be read"
    if error.context and problem.startswith("but "):
        problem = f"{error.context}, {problem}"
    elif error.context and error.context_mark:
        problem = f"{problem} ({error.context} of line {error.context_mark.line + 1})"
    return problem + next((f"; {hint}" for part, hint in _HINTS.items() if part in problem), "")


_HINTS = {
    "\\t": "indent with spaces",
    "indentation indicators": "put a text that begins with > or | in quotes",
    "alphabetic or numeric": "put a text that begins with * or & in quotes",
    "undefined alias": "put a text that begins with * in quotes",
    "mapping values are not allowed": "indent alike what stands together, and put a text with ': ' in quotes",
    "another document": "leave one",
    "but got '{'": "put a text with braces in quotes",
}


class _Reader:
    """The nodes of one document -> the values and lines of its source."""

    def __init__(self, source: Source, environ: Mapping[str, str]) -> None:
        self._source = source
        self._environ = environ
        self._nodes = 0

    def read(self, node: yaml.Node) -> None:
        self._source.lines[()] = node.start_mark.line + 1
        value = self._value(node, ())
        self._source.value = value
        if not isinstance(value, dict):
            self._source.fault((), "expected a mapping of keys such as listen, journal and backends")
            self._source.value = {}

    def _value(self, node: yaml.Node, path: Path) -> Any:
        self._nodes += 1
        if len(path) > _DEPTH or self._nodes > _NODES:  # aliases make both possible in a small file
            if self._nodes <= _NODES + 1:
                self._source.fault(path, _TOO_DEEP if len(path) > _DEPTH else "aliases repeat too much; write less")
            return None
        if node.tag not in _TAGS:
            self._source.fault(path, f"the tag {node.tag} means nothing here; leave it out")
            return None
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        items: list[Any] = []
        for index, item in enumerate(node.value):
            self._source.lines[(*path, index)] = item.start_mark.line + 1
            items.append(self._value(item, (*path, index)))
        return items

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value == "<<" and not key.style:
                self._source.faults.append(
                    Fault(
                        dotted((*path, "<<")), "merge keys are not taken; write the keys out", self._source.file, line
                    )
                )
            elif not isinstance(key, yaml.ScalarNode):
                self._source.lines[(*path, "?")] = line
                self._source.faults.append(Fault(dotted(path), "a key is a single word", self._source.file, line))
            elif key.value in values:
                first = self._source.lines[(*path, key.value)]
                self._source.faults.append(
                    Fault(dotted((*path, key.value)), f"given twice; see line {first}", self._source.file, line)
                )
            else:
                self._source.lines[(*path, key.value)] = line
                values[key.value] = self._value(value, (*path, key.value))
        return values

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Any:
        problems: list[str] = []
        text = _VARIABLE.sub(lambda match: self._variable(match, problems), node.value)
        if not problems and not node.style and node.value in _NULLS:
            problems = ["has no value; give one, or leave the key out for its default"]
        if problems:
            self._source.fault(path, "; ".join(problems))
            return None
        return text if node.style else _plain(text)

    def _variable(self, match: re.Match[str], problems: list[str]) -> str:
        if match[0] == "$${":
            return "${"
        parts = _NAME.fullmatch(match[1]) if match[2] else None
        if not parts:
            problems.append(f"{match[0]!r} is no variable; expected ${{NAME}} or ${{NAME:-default}}, or $${{ for ${{")
            return ""
        name, default = parts.groups()
        value = self._environ.get(name)
        if default is not None:
            return value or default
        if value is None:
            problems.append(f"the variable {name} is not set; set it, or write ${{{name}:-default}}")
        return value or ""


def _plain(text: str) -> str | int | float | bool:
    """A scalar without quotes."""
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
