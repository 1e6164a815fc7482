"""The backend's own keys of a config, checked. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from wafermon.backends.aws.options import AwsOptions
from wafermon.backends.s3.codecs import zstd_is_there
from wafermon.interfaces import Kind, Text

_BUCKET = re.compile(r"[A-Za-z0-9._-]{3,255}|arn:[a-z0-9-]+:s3[a-z-]*:[A-Za-z0-9:/_.-]+")
_CLASS = re.compile(r"[A-Z0-9_-]{1,64}")
_UNREADABLE = {"GLACIER", "DEEP_ARCHIVE"}
PREFIX_MOST = 800
"""Bytes of a prefix: a key has 1024."""


def _bucket(value: str) -> str:
    if not _BUCKET.fullmatch(value):
        raise ValueError(
            f"expected a bucket's name, or an access point's ARN, got {value!r}; no s3:// and no path: that is `prefix`"
        )
    return value


def _prefix(value: str) -> str:
    if not value:
        return value
    if value.startswith("/") or not value.endswith("/") or "//" in value:
        raise ValueError(
            f"expected a prefix such as wafermon/, with a slash at its end and none at its beginning, got {value!r}"
        )
    if {".", ".."} & set(value.split("/")) or not value.isprintable() or len(value.encode()) > PREFIX_MOST:
        raise ValueError(
            f"expected at most {PREFIX_MOST} printable bytes, and no . or .. between slashes, got {value[:100]!r}"
        )
    return value


def _class(value: str) -> str:
    if value in _UNREADABLE:
        raise ValueError(
            f"what is in {value} can't be read at once, which the backend must; use GLACIER_IR, or a lifecycle rule"
        )
    if not _CLASS.fullmatch(value):
        raise ValueError(f"expected a storage class such as STANDARD_IA, got {value!r}")
    return value


class S3Options(AwsOptions):
    """Messages as compressed JSON lines in objects of S3, or of a server with the same API."""

    claims_key: ClassVar[str] = "prefix"

    bucket: Annotated[str, AfterValidator(_bucket), Kind("a bucket")] = Field(
        description="The bucket, which must be there, or an access point's ARN.", examples=["fab-archive"]
    )
    prefix: Annotated[str, AfterValidator(_prefix), Kind("text")] = Field(
        default="", description="What all keys begin with, such as `wafermon/`. Of this backend alone."
    )
    compress: Literal["gzip", "zstd", "none"] = Field(
        default="gzip", description="How objects are packed: `.ndjson.gz`, `.ndjson.zst` or `.ndjson`."
    )
    conditional: bool = Field(
        default=True,
        description="Each object is written only if it is not there (`If-None-Match`), which makes it exactly once. `false` is for servers "
        "that don't know that: at least once.",
    )
    storage_class: Annotated[str, AfterValidator(_class), Kind("a storage class")] | None = Field(
        default=None,
        description="Such as `STANDARD_IA`, `INTELLIGENT_TIERING` or `GLACIER_IR`.",
        json_schema_extra={"default": "the bucket's"},
    )
    encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        default=None,
        description="How the server encrypts objects.",
        json_schema_extra={"default": "as the bucket says"},
    )
    kms_key: Text | None = Field(
        default=None,
        description="The key's id or ARN, with `encryption: aws:kms`.",
        json_schema_extra={"default": "AWS's own key"},
    )
    checksum: Literal["crc32", "md5"] = Field(
        default="crc32",
        description="By which the server checks what it got. `md5` is for servers that don't know the newer checksums.",
    )
    addressing: Literal["auto", "path", "virtual"] = Field(
        default="auto",
        description="Whether the bucket is in the URL's path or in its host name; `auto`: in the path where `endpoint_url` is given.",
    )

    @property
    def claims(self) -> tuple[str, ...]:
        """What all its keys begin with: readers of one backend's objects must not meet another's."""
        return (f"{self.place}/{self.prefix}",)

    @property
    def place(self) -> str:
        """The bucket, for people."""
        return f"{self.endpoint_url}/{self.bucket}" if self.endpoint_url else f"s3://{self.bucket}"

    @field_validator("compress")
    @classmethod
    def _can_be_had(cls, value: str) -> str:
        if value == "zstd" and not zstd_is_there():
            raise ValueError("needs a package that is not installed: pip install 'wafermon[zstd]'")
        return value

    @field_validator("kms_key")
    @classmethod
    def _only_with_kms(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and not str(info.data.get("encryption")).startswith("aws:kms"):
            raise ValueError("needs `encryption: aws:kms`")
        return value
