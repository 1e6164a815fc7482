"""Thin clients: how many statements an SDK has, and that each has a line of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

import statements
from conformance import Language

LEAST, MOST = 200, 600  # the second for each file


def test_size(language: Language) -> None:
    """What one has to copy; companions (TLS, compression, logging) are apart."""
    counts = {path.name: statements.count(path) for path in language.core}
    print(f"{language.name}: {sum(counts.values())} statements in {counts}")
    assert LEAST <= sum(counts.values())
    assert max(counts.values()) <= MOST


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
