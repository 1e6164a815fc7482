"""The backend's own keys of a config, checked. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from wafermon.backends.aws.options import AwsOptions
from wafermon.interfaces import Kind, Text

FIELDS = ("service", "host", "type")
_GROUP = re.compile(r"[A-Za-z0-9._/#-]{1,512}")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
STREAM_MOST = 512
DIMENSIONS_MOST = 28
"""CloudWatch has 30, and `unit` may be one."""


def _group(value: str) -> str:
    if not _GROUP.fullmatch(value):
        raise ValueError(f"expected a log group such as /fab/wafermon, of A-Z a-z 0-9 . _ / # -, got {value!r}")
    return value


def _stream(value: str) -> str:
    for field in _PLACEHOLDER.findall(value):
        if field not in FIELDS:
            raise ValueError(f"{{{field}}} is no field; expected any of {', '.join(f'{{{one}}}' for one in FIELDS)}")
    fixed = _PLACEHOLDER.sub("", value)
    if set(fixed) & set("{}:*") or not fixed.isprintable() or len(fixed.encode()) > STREAM_MOST // 4:
        raise ValueError(f"expected a log stream such as {{service}}, without : and *, got {value!r}")
    return value


def _namespace(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._/#:-]{1,255}", value) or value.startswith("AWS/"):
        raise ValueError(f"expected a namespace such as wafermon, of A-Z a-z 0-9 . _ / # : -, not AWS/…; got {value!r}")
    return value


def _dimensions(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) > DIMENSIONS_MOST:
        raise ValueError(f"expected at most {DIMENSIONS_MOST}, got {len(value)}")
    for name in value:
        if not re.fullmatch(r"[!-9;-~][!-~]{0,254}", name) or value.count(name) > 1 or name in ("_aws", "unit"):
            raise ValueError(f"expected service, host or a tag's name, each once, got {name!r}")
    return value


class CloudWatchOptions(AwsOptions):
    """Messages as log events of CloudWatch Logs, and metrics by its embedded metric format. At least once."""

    log_group: Annotated[str, AfterValidator(_group), Kind("a log group")] = Field(
        description="The log group.", examples=["/fab/wafermon"]
    )
    log_stream: Annotated[str, AfterValidator(_stream), Kind("text")] = Field(
        default="{service}",
        description="The log stream. `{service}`, `{host}` and `{type}` are replaced. Streams are made when they are needed.",
    )
    create_group: bool = Field(default=False, description="Whether the log group is made too, where it is not there.")
    metrics: Literal["none", "emf"] = Field(
        default="none",
        description="`emf`: CloudWatch takes a metric from each metric message (embedded metric format), for which it bills. `none`: they are "
        "log events like all others.",
    )
    namespace: Annotated[str, AfterValidator(_namespace), Kind("a namespace")] = Field(
        default="wafermon", description="Of the metrics."
    )
    dimensions: Annotated[tuple[Text, ...], AfterValidator(_dimensions), Kind("a list of names")] = Field(
        default=("service",),
        description="Of the metrics: `service`, `host`, or names of tags. Each combination of values is a metric of its own on the bill.",
        strict=False,
    )

    @property
    def place(self) -> str:
        """The log group, for people."""
        return f"log group {self.log_group}" + (f" at {self.endpoint_url}" if self.endpoint_url else "")
