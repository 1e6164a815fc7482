"""Thin clients: how many statements an SDK has, and that each has a line of its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import statements
from conformance import SDK, Language

LEAST, MOST = 200, 600  # the second for each file


ROW = re.compile(r"^\| (\w+) \| ([0-9,]+) \| (\d+) \| `([^`]+)`, ([0-9,]+) \|$", re.MULTILINE)
"""Of the table in ../README.md: language, statements, files, the largest file and its statements."""


def counts_of(language: Language) -> dict[str, int]:
    """What one has to copy; companions that are folders or files of their own (logging, TLS) are apart."""
    return {path.name: count for path in language.core if (count := statements.count(path)) > 1}


def test_size(language: Language) -> None:
    counts = counts_of(language)
    largest = max(counts, key=lambda name: counts[name])
    print(f"| {language.name} | {sum(counts.values()):,} | {len(counts)} | `{largest}`, {counts[largest]} |")
    assert LEAST <= sum(counts.values())
    assert counts[largest] <= MOST


def test_the_guide_says_how_large_they_are(language: Language) -> None:
    """Within a twentieth, since who fixes a statement need not count them."""
    counts = counts_of(language)
    rows = {row[0]: row for row in ROW.findall((SDK / "README.md").read_text())}
    _, total, _, largest, most = rows[language.name]
    for said, is_so in ((total, sum(counts.values())), (most, counts[largest])):
        assert abs(int(said.replace(",", "")) - is_so) <= is_so / 20, f"{said} in sdk/README.md, {is_so} counted"


@pytest.mark.needs("readable")
def test_one_statement_a_line(language: Language) -> None:
    squeezed = {path.name: lines for path in language.core if (lines := statements.squeezed(path))}
    assert not squeezed


SAMPLES = {
    "a.py": '''\
"""Docs."""
import os


def f(a):
    """Docs."""
    if a: return 1
    b = 2
    return b
''',
    "a.c": """\
/* docs; */
#include <x.h>
int f(int a) {
    if (a) return 1;
    for (i = 0; i < 3; i++) g(";");
    b = 2; return b;
}
""",
    "a.pm": """\
=head1 X

some; words;

=cut

sub f {
    my ($a) = @_;  # a;
    return 1 if $a;
    my %h = (a => 1,
        b => 2);
}
""",
    "a.R": """\
f <- function(a) {
  if (a) {
    return(1)
  }
  b <- list(
    x = 1,
    y = function() {
      2
    }
  )
  b +
    1
}
""",
    "a.go": """\
package p

func f(a int) int {
    if b := a; b > 0 {
        return 1
    }
    for i := 0; i < a; i++ {
        h(func() {
            i += 2
        })
    }
    return g(a,
        2)
}
""",
    "A.java": """\
class A {
    int f(int a) {
        if (a > 0) {
            return 1;
        }
        run(() -> {
            g();
        });
        return 2;
    }
}
""",
    "a.mjs": """\
const a = 1
function f() {
  if (a) {
    return g({x: 1, y: 2})
  }
  return a
    .b()
}
""",
}
COUNTS = {"a.py": 4, "a.c": 6, "a.pm": 4, "a.R": 5, "a.go": 6, "A.java": 5, "a.mjs": 4}


@pytest.mark.parametrize("name", SAMPLES)
def test_statements_are_counted(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(SAMPLES[name])
    assert statements.count(path) == COUNTS[name]
    assert statements.squeezed(path) == {"a.py": [7], "a.c": [6]}.get(name, [])
