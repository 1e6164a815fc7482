"""When a cron expression is due, in a time zone. Pure; times are microseconds since the Unix epoch.

Five fields as Debian's cron reads them, also over the nights in which clocks are set: what is due in an hour that is left out comes
just after it, and what is due in an hour that is there twice comes once.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

SECOND = 1_000_000
ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
LENGTH_MAX = 256
TWICE = 3 * 3600 * SECOND
"""Longer than any hour that comes twice, and what follows it."""
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


@lru_cache(1024)
def zone_of(name: str) -> tzinfo:
    """``Europe/Berlin`` -> the zone. Raises ValueError."""
    if name == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"no time zone {name!r} is known here; expected one such as Europe/Berlin, or UTC") from None


def check_cron(text: str) -> str:
    """An expression or one of ALIASES -> the expression's five fields. Raises ValueError, which says what is wrong."""
    if len(text) > LENGTH_MAX:
        raise ValueError(f"longer than {LENGTH_MAX} characters")
    given = text.strip()
    if given.startswith("@"):
        if given not in ALIASES:
            raise ValueError(f"{given!r} is none of {', '.join(ALIASES)}")
        return ALIASES[given]
    fields = given.split()
    if len(fields) != 5:
        raise ValueError(
            f"expected five fields (minute, hour, day of the month, month, day of the week), got {len(fields)}"
        )
    said = " ".join(fields)
    try:
        CronSim(said, _EPOCH)
    except CronSimError as error:
        what = str(error).removeprefix("Bad ").replace("-", " ")
        raise ValueError(f"{given!r}: its {what} can't be") from None
    if next_due(said, "UTC", 0) is None:
        raise ValueError(f"{given!r} is never due")
    return said


@lru_cache(20_000)
def next_due(cron: str, zone: str, after: int) -> int | None:
    """The first time later than `after`; None where there is none any more. `cron` is what `check_cron` answers."""
    for found in _times(cron, _local(after, zone), reverse=False):
        if found > after:  # in an hour that comes twice the search begins in the first one
            return found
    return None


@lru_cache(20_000)
def last_due(cron: str, zone: str, before: int) -> int | None:
    """The last time up to `before`; None where there was none."""
    moment = _local(before + 1, zone)
    if moment.fold:  # the search would not look at the same hour when it came first
        moment = _local(before + 1 + TWICE, zone)
    for found in _times(cron, moment, reverse=True):
        if found <= before:
            return found
    return None


def _local(at: int, zone: str) -> datetime:
    return (_EPOCH + timedelta(microseconds=at)).astimezone(zone_of(zone))


def _times(cron: str, moment: datetime, *, reverse: bool) -> Iterator[int]:
    try:
        for found in CronSim(cron, moment, reverse=reverse):
            yield (found - _EPOCH) // timedelta(microseconds=1)
    except (OverflowError, ValueError):  # beyond what dates there are
        return
