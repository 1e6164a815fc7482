"""Keys that all of these backends take. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator

from wafermon.interfaces import FilePath, Kind, Options, Text

_URL = re.compile(r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[!-~]*)?")
_REGION = re.compile(r"[a-z0-9-]{1,64}")


def _url(value: str) -> str:
    if not _URL.fullmatch(value):
        raise ValueError(f"expected a URL such as https://s3.example.org:9000, got {value!r}")
    return value.rstrip("/")


def _region(value: str) -> str:
    if not _REGION.fullmatch(value):
        raise ValueError(f"expected a region such as eu-central-1, got {value!r}")
    return value


Url = Annotated[str, AfterValidator(_url), Kind("a URL")]
Region = Annotated[str, AfterValidator(_region), Kind("a region")]


class AwsOptions(Options):
    """Where the service is, and as whom to speak to it."""

    region: Region | None = Field(
        default=None,
        description="The region, such as `eu-central-1`.",
        json_schema_extra={
            "default": "what the environment or `~/.aws/config` says; `us-east-1` with an `endpoint_url`"
        },
    )
    endpoint_url: Url | None = Field(
        default=None, description="Another server with the same API, or a VPC endpoint. Without it: AWS."
    )
    profile: Text | None = Field(default=None, description="The profile of `~/.aws/config` and `~/.aws/credentials`.")
    credentials_file: FilePath | None = Field(
        default=None,
        description="A file like `~/.aws/credentials`, instead of that. Without it the whole chain of AWS is tried: environment, files, web "
        "identity, container, instance.",
    )
    ca_file: FilePath | None = Field(
        default=None,
        description="PEM of the authorities that the server's certificate must come from, instead of those of AWS's library.",
    )

    @field_validator("ca_file")
    @classmethod
    def _only_with_tls(cls, value: Any, info: Any) -> Any:
        url = info.data.get("endpoint_url")
        if value is not None and url is not None and url.startswith("http:"):
            raise ValueError(f"{url} has no certificate; write https:// there, or leave this out")
        return value
