"""Requests to buckets, in the words of the store: put an object where none is, ask what is there, read it. All of it blocks."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from typing import Any

from wafermon.backends.aws.client import Client
from wafermon.backends.aws.failures import CallFailed
from wafermon.backends.s3.codecs import CODECS
from wafermon.backends.s3.objects import CRC, FENCE, Intent, Stored, metadata_of
from wafermon.backends.s3.options import S3Options
from wafermon.interfaces import RetryableError

EXISTS = 412
PROBE = "_wafermon/conditional-writes"
ABSENT = "_wafermon/nothing"
"""Readers of Hive-style folders pass over names that begin with an underscore."""
PROBE_TEXT = b"By writing this object twice, wafermon finds out whether the server keeps conditional writes.\n"


class Exists(RetryableError):
    """There is an object under that key already."""


class Buckets:
    """The configured bucket, and that of an intent from before the config was changed. `abort` may come from any thread."""

    def __init__(self, options: S3Options, timeout: float) -> None:
        self.options = options
        self._timeout = timeout
        self._clients: dict[tuple[str | None, str | None, str], Client] = {}
        self._aborted = False

    def of(self, endpoint_url: str | None, region: str | None, bucket: str) -> Client:
        key = (endpoint_url, region, bucket)
        if key not in self._clients:
            options = self.options.model_copy(update={"endpoint_url": endpoint_url, "region": region, "bucket": bucket})
            path = options.addressing == "path" or (options.addressing == "auto" and endpoint_url)
            self._clients[key] = Client(
                "s3",
                options,
                self._timeout,
                options.place,
                s3={"addressing_style": "path" if path else options.addressing},
                request_checksum_calculation="when_supported" if options.checksum == "crc32" else "when_required",
                response_checksum_validation="when_supported" if options.checksum == "crc32" else "when_required",
            )
            if self._aborted:
                self._clients[key].abort()
        return self._clients[key]

    def _of(self, intent: Intent) -> Client:
        # The region only says how to get there: where the place is the same, a config that was corrected holds.
        region = self.options.region if self.is_configured(intent) else intent.region
        return self.of(intent.endpoint_url, region, intent.bucket)

    def is_configured(self, intent: Intent) -> bool:
        """Whether the intent's bucket is that of the config."""
        return (intent.endpoint_url, intent.bucket) == (self.options.endpoint_url, self.options.bucket)

    def put(self, intent: Intent, raw: bytes, count: int) -> int:
        """Store lines under the intent's key; answers with how many bytes that took. Raises Exists, or CallFailed."""
        body = CODECS[intent.codec].pack(raw)
        more: dict[str, Any] = {"IfNoneMatch": "*"} if intent.conditional else {}
        self._put(self._of(intent), intent.bucket, intent.key, body, Metadata=metadata_of(intent, count), **more)
        return len(body)

    def fence(self, intent: Intent) -> None:
        """Let nothing be stored under the intent's key any more. Raises Exists, or CallFailed."""
        said = {**metadata_of(intent, 0), CRC: "0" * 8, FENCE: "1"}
        self._put(
            self._of(intent), intent.bucket, intent.key, CODECS[intent.codec].pack(b""), Metadata=said, IfNoneMatch="*"
        )

    def try_out(self) -> str:
        """What keeps the configured bucket from being written to as the config says; empty where nothing does. Leaves one small
        object. Raises CallFailed."""
        given = self.options
        client = self.of(given.endpoint_url, given.region, given.bucket)
        more = {"IfNoneMatch": "*"} if given.conditional else {}
        try:
            for _ in range(2 if given.conditional else 1):
                self._put(client, given.bucket, given.prefix + PROBE, PROBE_TEXT, ContentType="text/plain", **more)
        except Exists:
            return ""
        if not given.conditional:
            return ""
        return (
            f"{given.place}: the server ignores If-None-Match, so that nothing can be stored exactly once there; upgrade it, or set "
            "`conditional: false` (each message at least once)"
        )

    def try_to_look(self) -> None:
        """Whether an object's absence can be told. Raises CallFailed."""
        given = self.options
        client = self.of(given.endpoint_url, given.region, given.bucket)
        try:
            client.call("head_object", Bucket=given.bucket, Key=given.prefix + ABSENT)
        except CallFailed as error:
            if error.status != 404:
                raise

    def _put(self, client: Client, bucket: str, key: str, body: bytes, **more: Any) -> None:
        given = self.options
        arguments: dict[str, Any] = {
            "ContentType": "application/x-ndjson",
            "StorageClass": given.storage_class,
            "ServerSideEncryption": given.encryption,
            "SSEKMSKeyId": given.kms_key,
            **more,
        }
        if given.checksum == "md5":
            arguments["ContentMD5"] = b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        chosen = {name: value for name, value in arguments.items() if value is not None}
        try:
            client.call("put_object", Bucket=bucket, Key=key, Body=body, **chosen)
        except CallFailed as error:
            if error.status == EXISTS:
                raise Exists(str(error)) from error
            raise

    def look(self, intent: Intent) -> Stored | None:
        """What is there under the intent's key; None where nothing is. Raises CallFailed."""
        try:
            found = self._of(intent).call("head_object", Bucket=intent.bucket, Key=intent.key)
        except CallFailed as error:
            if error.status == 404:
                return None
            raise
        return Stored.read(found.get("Metadata", {}))

    def lines(self, intent: Intent) -> bytes | None:
        """The lines that are there; None where they are none that the intent's codec has packed. Raises CallFailed."""
        packed = self._of(intent).call("get_object", Bucket=intent.bucket, Key=intent.key)["Body"]
        try:
            return CODECS[intent.codec].unpack(packed)
        except (ValueError, EOFError, OSError):
            return None

    def place(self, intent: Intent) -> str:
        """Where the intent's object is, for people."""
        base = f"{intent.endpoint_url}/{intent.bucket}" if intent.endpoint_url else f"s3://{intent.bucket}"
        return f"{base}/{intent.key}"

    def abort(self) -> None:
        self._aborted = True
        for client in list(self._clients.values()):
            client.abort()

    def close(self) -> None:
        for client in self._clients.values():
            client.drop()
