"""A metric as a log event in CloudWatch's embedded metric format: the line, with what makes CloudWatch take a metric from it. Pure.

    {"type":"metric",…,"name":"rate","value":3,"_aws":{"Timestamp":…,"CloudWatchMetrics":[…]},"rate":3}

What CloudWatch can't take as a metric stays a log event as it is: NaN, infinities, values and names out of its range.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from wafermon.model.messages import Metric, decode_object, dumps

GREATEST, LEAST = 2.0**360, 8.515920e-109
"""Of a value's magnitude; 0 is lawful."""
NAME_MOST, VALUE_MOST = 255, 1024
_NAME = re.compile(r"[ -~]*[!-~][ -~]*")
UNITS: Mapping[str, str] = {
    "s": "Seconds", "ms": "Milliseconds", "us": "Microseconds", "µs": "Microseconds", "μs": "Microseconds",
    "By": "Bytes", "kBy": "Kilobytes", "MBy": "Megabytes", "GBy": "Gigabytes", "TBy": "Terabytes",
    "B": "Bytes", "kB": "Kilobytes", "MB": "Megabytes", "GB": "Gigabytes", "TB": "Terabytes",
    "bit": "Bits", "kbit": "Kilobits", "Mbit": "Megabits", "Gbit": "Gigabits", "Tbit": "Terabits",
    "%": "Percent", "1": "Count", "{count}": "Count",
    "By/s": "Bytes/Second", "kBy/s": "Kilobytes/Second", "MBy/s": "Megabytes/Second", "GBy/s": "Gigabytes/Second",
    "TBy/s": "Terabytes/Second", "bit/s": "Bits/Second", "kbit/s": "Kilobits/Second", "Mbit/s": "Megabits/Second",
    "Gbit/s": "Gigabits/Second", "Tbit/s": "Terabits/Second", "1/s": "Count/Second", "/s": "Count/Second", "Hz": "Count/Second",
}  # fmt: skip
"""UCUM, and what people write beside it -> CloudWatch's names. It has a fixed list; any other unit is `None` there."""


def embedded(line: bytes, metric: Metric, namespace: str, dimensions: Sequence[str]) -> bytes | None:
    """The line as CloudWatch takes a metric from it; None where it can't. A dimension is `service`, `host` or a tag; one that the
    metric has not is left out."""
    value = metric.value
    if isinstance(value, str) or abs(value) > GREATEST or 0 < abs(value) < LEAST:
        return None
    known = decode_object(line)
    name = metric.name if metric.name not in known else f"metric.{metric.name}"
    if name in known or len(name) > NAME_MOST or not _NAME.fullmatch(name):
        return None
    given, tags = {}, metric.tags or {}
    for dimension in dimensions:
        held = known.get(dimension) if dimension in ("service", "host") else tags.get(dimension)
        text = held if isinstance(held, str) else "" if held is None else f"{held:g}"
        is_new = dimension in ("service", "host") or dimension not in known
        if is_new and dimension != name and len(text) <= VALUE_MOST and _NAME.fullmatch(text):
            given[dimension] = text
    unit = UNITS.get(metric.unit or "", "None")
    names = list(given)
    if metric.unit and unit == "None" and _NAME.fullmatch(metric.unit):
        names.append("unit")  # it stands in the line already
    said = {
        "_aws": {
            "Timestamp": int(metric.ts or 0) // 1000,
            "CloudWatchMetrics": [
                {"Namespace": namespace, "Dimensions": [names], "Metrics": [{"Name": name, "Unit": unit}]}
            ],
        },
        **{key: text for key, text in given.items() if key not in known},
        name: value,
    }
    return line[:-1] + b"," + dumps(said)[1:].encode()
