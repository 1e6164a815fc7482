"""Which places of a config meet: journal, dead letters, spill folder and every backend's files, all against all.

Two writers to one file would tear it, and a stranger's file in a directory of ours would be taken for ours. Paths are compared by
what they really are: symlinks are followed, and a message's value may stand for any name that a template lets it have.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

from wafermon.model.checking import Path

Meeting = tuple[Path, str]
"""The key that has to change, and why."""


def meetings(directories: Mapping[Path, str], options: Mapping[str, Any]) -> Iterator[Meeting]:
    """`directories` are ours, by their keys; `options` are the backends' by their names. What a backend's options say in `claims`, if
    they say anything, are the beginnings of the paths that it writes to; where they have `leads_into(directory)`, that tells exactly
    whether one of them lies in a directory."""
    real = {key: f"{os.path.realpath(directory)}{os.sep}" for key, directory in directories.items()}
    yield from _among_directories(real)
    claims = {name: [resolved(claim) for claim in getattr(one, "claims", ())] for name, one in options.items()}
    for name, one in options.items():
        for key, directory in real.items():
            if problem := _of_backend(one, claims[name], directory, _named(key)):
                yield ("backends", name, "path"), problem
    yield from _among_backends(claims, {name: getattr(one, "claims_key", "path") for name, one in options.items()})


def resolved(claim: str) -> str:
    """The beginning of a path, without the symlinks in it. One that is no path but a URL stays as it is."""
    if "://" in claim:
        return claim
    directory, name = os.path.split(os.path.abspath(claim) + (os.sep if claim.endswith(os.sep) else ""))
    return os.path.join(os.path.realpath(directory), name)


def _named(key: Path) -> str:
    return ".".join(map(str, key))


def _among_directories(real: Mapping[Path, str]) -> Iterator[Meeting]:
    for (first, one), (second, other) in combinations(real.items(), 2):
        if other.startswith(one):
            yield second, f"lies within {_named(first)}; give it a directory beside that"
        elif one.startswith(other):
            yield first, f"lies within {_named(second)}; give it a directory beside that"


def _of_backend(options: Any, claims: list[str], directory: str, key: str) -> str:
    if any(claim.startswith(directory) for claim in claims):
        return f"lies within {key}; give it a directory beside that"
    exact = getattr(options, "leads_into", None)
    if exact(directory) if exact is not None else any(directory.startswith(claim) for claim in claims):
        return f"a message's value can lead into {key} ({directory}); give it a directory of its own"
    return ""


def _among_backends(claims: Mapping[str, list[str]], keys: Mapping[str, str]) -> Iterator[Meeting]:
    """`keys` are what the backends call that by which they claim."""
    taken: list[tuple[str, str]] = []
    for name, own in claims.items():
        for other, owner in taken:
            if any(claim.startswith(other) or other.startswith(claim) for claim in own):
                overlap = f"overlaps with the {keys[owner]} of {owner!r}, which begins with {other}"
                wanted = "directory" if keys[name] == "path" else keys[name]
                yield ("backends", name, keys[name]), f"{overlap}; give each backend a {wanted} of its own"
        taken += [(claim, name) for claim in own]
