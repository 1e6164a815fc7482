"""The backend's own keys of a config, checked. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from wafermon.interfaces import FilePath, Kind, Options
from wafermon.wire.otlp.protobuf import MISSING, is_there
from wafermon.wire.otlp.shapes import SIGNALS, Signal

_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[!-~]*)?")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}")
_OURS = {"content-type", "content-encoding", "content-length", "host", "connection", "transfer-encoding"}


def _url(value: str) -> str:
    if not _URL.fullmatch(value) or "?" in value or "#" in value:
        raise ValueError(f"expected a URL such as http://localhost:4318, got {value!r}")
    if re.search(r"/v1/(logs|metrics|traces)/?$", value):
        raise ValueError(f"expected the part before /v1/, which is added for each signal, got {value!r}")
    return value.rstrip("/")


def _headers(value: Mapping[str, str]) -> Mapping[str, str]:
    for name, text in value.items():
        if not _NAME.fullmatch(name) or name.lower() in _OURS:
            raise ValueError(f"expected a header such as Authorization, none of HTTP's own, got {name!r}")
        if not all(" " <= one <= "~" for one in text):
            raise ValueError(f"the value of {name} must be printable ASCII on one line")
    return value


def _signals(value: tuple[Signal, ...]) -> tuple[Signal, ...]:
    if not value or len(set(value)) != len(value):
        raise ValueError(f"expected some of {', '.join(SIGNALS)}, each once")
    return value


def _resource(value: Mapping[str, str]) -> Mapping[str, str]:
    for name in value:
        if not name or name in ("service.name", "host.name", "process.pid", "service.instance.id"):
            raise ValueError(f"{name or 'an empty key'} can't be given: messages say that themselves")
    return value


class OtlpOptions(Options):
    """Messages as logs, metrics and spans to any receiver of OTLP over HTTP. At least once."""

    url: Annotated[str, AfterValidator(_url), Kind("a URL")] = Field(
        description="The receiver's, without `/v1/…`, which is added for each signal.",
        examples=["http://localhost:4318"],
    )
    signals: Annotated[tuple[Signal, ...], AfterValidator(_signals), Kind("a list of signals")] = Field(
        default=SIGNALS, description="What is sent: `logs`, `metrics`, `traces`.", strict=False
    )
    encoding: Literal["json", "protobuf"] = Field(
        default="json", description="How requests are written. `protobuf` needs `pip install 'wafermon[otlp]'`."
    )
    compress: Literal["gzip", "none"] = Field(default="gzip", description="How they are packed.")
    headers: Annotated[Mapping[str, str], AfterValidator(_headers), Kind("a mapping of text")] = Field(
        default={},
        description="What each request carries beside, such as `Authorization: Bearer ${TOKEN}`.",
        repr=False,
    )
    resource: Annotated[Mapping[str, str], AfterValidator(_resource), Kind("a mapping of text")] = Field(
        default={}, description="Further attributes of every resource, such as `deployment.environment.name: fab-2`."
    )
    temporality: Literal["delta", "cumulative"] = Field(
        default="delta",
        description="What is said of a counter: how many more since its last point, or how many since the backend was opened. Prometheus "
        "takes `cumulative`.",
    )
    progress: bool = Field(
        default=False,
        description="Whether a job's progress is a metric too, `job.progress`: each job is a series of its own then. Its end is always a log "
        "record.",
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM of the authorities that the server's certificate must come from.",
        json_schema_extra={"default": "the system's"},
    )
    certificate: FilePath | None = Field(
        default=None, description="The certificate that the sidecar shows the server (mutual TLS), PEM."
    )
    key: FilePath | None = Field(default=None, description="Its private key, PEM.", validate_default=True)

    @field_validator("encoding")
    @classmethod
    def _installed(cls, value: str) -> str:
        if value == "protobuf" and not is_there():
            raise ValueError(f"{MISSING}, or leave it at json")
        return value

    @field_validator("ca_file", "certificate")
    @classmethod
    def _only_with_tls(cls, value: Any, info: Any) -> Any:
        url = info.data.get("url")
        if value is not None and url is not None and url.startswith("http:"):
            raise ValueError(f"{url} has no certificate; write https:// there, or leave this out")
        return value

    @field_validator("key")
    @classmethod
    def _with_the_certificate(cls, value: Any, info: Any) -> Any:
        if "certificate" in info.data and (value is None) != (info.data["certificate"] is None):
            raise ValueError("`certificate` and `key` go together")
        return value
