"""How a config writes sizes, times and rates. 0 means no limit wherever a limit is asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30
SIZE_UNITS = {"KiB": KiB, "MiB": MiB, "GiB": GiB}
TIME_UNITS = {"ms": Fraction(1, 1000), "s": Fraction(1), "m": Fraction(60), "h": Fraction(3600), "d": Fraction(86400)}
SIZE_MAX = 2**63 - 1
TIME_MAX = 36_500 * 86_400


@dataclass(frozen=True)
class Rate:
    """At most `count` in any stretch of `seconds`; a count of 0 is no limit."""

    count: int
    seconds: float

    def __str__(self) -> str:
        return format_rate(self)


def parse_size(value: str | float) -> int:
    """``64MiB``, ``1.5GiB``, ``4096`` -> bytes. Raises ValueError."""
    size = _parse(value, SIZE_UNITS, "a size such as 64MiB (units KiB MiB GiB; bytes without one)")
    if size > SIZE_MAX:
        raise ValueError(f"{value!r} is larger than any disk")
    if size.denominator != 1:
        raise ValueError(f"{value!r} is no whole number of bytes")
    return int(size)


def parse_duration(value: str | float) -> float:
    """``200ms``, ``1.5h``, ``30d``, ``30`` -> seconds. Raises ValueError."""
    seconds = _parse(value, TIME_UNITS, "a time such as 30s (units ms s m h d; seconds without one)")
    if seconds > TIME_MAX:
        raise ValueError(f"{value!r} is longer than 36500d; write 0 for no limit")
    return float(seconds)


def parse_rate(value: str | float) -> Rate:
    """``10/m``, ``100/24h`` -> Rate. ``0`` is no limit. Raises ValueError."""
    if value in (0, "0") and not isinstance(value, bool):
        return Rate(0, 1.0)
    match = _RATE.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(f"expected a rate such as 10/m (units ms s m h d), got {value!r}")
    seconds = parse_duration(match[2] if match[2][0].isdigit() else "1" + match[2])
    if not seconds:
        raise ValueError(f"{value!r} counts within no time at all")
    return Rate(int(match[1]), seconds)


_NUMBER = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?) ?([A-Za-z]*)")
_RATE = re.compile(r"([0-9]{1,15}) ?/ ?((?:[0-9]+(?:\.[0-9]+)?)? ?[a-z]+)")


def _parse(value: str | float, units: dict[str, int] | dict[str, Fraction], wanted: str) -> Fraction:
    """A number with one of the units, or with none, as what it stands for."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return Fraction(str(value))
    match = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if not match or (match[2] and match[2] not in units):
        raise ValueError(f"expected {wanted}, got {value!r}")
    return Fraction(match[1]) * Fraction(units[match[2]] if match[2] else 1)


def format_size(size: int) -> str:
    """Bytes as `parse_size` reads them, in the largest unit that divides them."""
    for unit, factor in reversed(SIZE_UNITS.items()):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def format_duration(seconds: float) -> str:
    """Seconds as `parse_duration` reads them, in the largest unit that divides them."""
    exact = Fraction(str(seconds))
    for unit, factor in reversed(TIME_UNITS.items()):
        if exact and exact % factor == 0:
            return f"{exact // factor}{unit}"
    return f"{seconds:f}".rstrip("0").rstrip(".") if exact else "0"


def format_rate(rate: Rate) -> str:
    """A rate as `parse_rate` reads it."""
    if not rate.count:
        return "0"
    time = format_duration(rate.seconds)
    return f"{rate.count}/{time[1:] if time[0] == '1' and time[1:].isalpha() else time}"
