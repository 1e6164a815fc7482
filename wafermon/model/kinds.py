"""What kind of job a job is: its id without what differs from run to run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache

ANY = "*"
"""What is left of an id that has nothing of its own: such jobs are told apart by their root span."""
_DATE = re.compile(
    r"(?<![0-9])(?:19|20)[0-9]{2}([-_.]?)[0-9]{2}\1[0-9]{2}"
    r"(?:[T_ -]?[0-9]{2}[:.-]?[0-9]{2}(?:[:.-]?[0-9]{2}(?:[.,][0-9]+)?)?(?:Z|[+-][0-9]{2}:?[0-9]{2})?)?(?![0-9])"
)
_UUID = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?![0-9A-Za-z])")
_HEX = re.compile(r"(?<![0-9A-Za-z])(?=[0-9A-Fa-f]*[0-9])[0-9A-Fa-f]{8,}(?![0-9A-Za-z])")
_LONG_HEX = re.compile(r"[0-9A-Fa-f]{8}")
_DIGITS = re.compile(r"[0-9]+")
_JOINED = re.compile(r"\*(?:[-_.:/+ ]?\*)+")


@lru_cache(4096)
def kind_of(job_id: str) -> str:
    """``load-2026-11-28`` -> ``load-*``: dates, hexadecimal ids and digits are taken out; what is left of neighbours is one star."""
    text = job_id  # to look whether there may be something costs less than to look for it
    if text.count("-") >= 4:
        text = _UUID.sub(ANY, text)
    if "19" in text or "20" in text:
        text = _DATE.sub(ANY, text)
    if _LONG_HEX.search(text):
        text = _HEX.sub(ANY, text)
    text = _DIGITS.sub(ANY, text)
    return _JOINED.sub(ANY, text)


def kind_of_root(service: str, name: str) -> str:
    """The kind of a job whose id tells nothing, from its root span: ``SERVICE/NAME``, the name without digits."""
    return f"{service}/{kind_of(name)}"


class Kinds:
    """Kinds by id, or under the names that a config gives them."""

    def __init__(self, named: Mapping[str, str] | None = None) -> None:
        """`named`: name -> the glob over job ids that it stands for; the first that matches is taken."""
        self._named = dict(named or {})

    def of(self, job_id: str) -> str:
        """A kind, or ANY where the root span has to tell."""
        for name, glob in self._named.items():
            if fnmatchcase(job_id, glob):
                return name
        return kind_of(job_id)
