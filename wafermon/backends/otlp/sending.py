"""One request after the other to the receiver of the config, and what its answers mean. It blocks, in one thread."""

from __future__ import annotations

import gzip
import ssl
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from wafermon.backends.otlp.answers import RETRYABLE, TOO_LARGE, answer_of, in_words, reason_of, wait_of
from wafermon.backends.otlp.options import OtlpOptions
from wafermon.backends.otlp.posting import Answered, Server
from wafermon.interfaces import PermanentError, RetryableError
from wafermon.wire.otlp import protobuf
from wafermon.wire.otlp.shapes import Answer, Request, Signal

GZIP_LEVEL = 1
"""For requests like ours the next levels take more time and give hardly fewer bytes."""
_MEDIA_TYPES = {"json": "application/json", "protobuf": "application/x-protobuf"}
_encode_json = msgspec.json.Encoder().encode


class TooLarge(PermanentError):
    """The receiver takes no request of this size."""


class Sent(NamedTuple):
    """A request that was taken."""

    rejected: int
    """Of its records; the receiver did not say which."""
    reason: str
    bytes: int
    """As it went over the wire, without headers."""


class Sender:
    """See the module. `abort` may come from any thread."""

    def __init__(
        self, options: OtlpOptions, timeout: float, seconds: Callable[[], float], wall: Callable[[], float]
    ) -> None:
        """`timeout` in seconds is for a request; `seconds` is a clock that nobody sets, `wall` the date."""
        self._options = options
        self._seconds = seconds
        self._wall = wall
        self._server = Server(options.url, options.headers, timeout, self._tls)
        self._closed_until = 0.0
        """Until when the server wants to be left alone."""

    def encode(self, signal: Signal, request: Request) -> bytes:
        if self._options.encoding == "protobuf":
            return protobuf.encode(signal, request)
        return _encode_json(request)

    def send(self, signal: Signal, body: bytes) -> Sent:
        """Raises RetryableError, PermanentError or TooLarge."""
        where = f"{self._options.url}/v1/{signal}"
        if self._seconds() < self._closed_until:
            raise RetryableError(f"{where}: the server asked to be left alone for a while; tried again after that")
        headers = {"Content-Type": _MEDIA_TYPES[self._options.encoding], "User-Agent": "wafermon"}
        if self._options.compress == "gzip":
            headers["Content-Encoding"] = "gzip"
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
        answered = self._server.post(f"/v1/{signal}", body, headers)
        if 200 <= answered.status < 300:
            partial = self._answer(signal, answered).partial_success
            rejected, reason = (partial.rejected, partial.error_message) if partial else (0, "")
            return Sent(rejected, reason, len(body))
        text = f"{where}: {in_words(answered.status, reason_of(answered.body, answered.media_type))}"
        if answered.status in RETRYABLE:
            self._closed_until = self._seconds() + wait_of(answered.retry_after, self._wall())
            raise RetryableError(text)
        kind = TooLarge if answered.status == TOO_LARGE else PermanentError
        raise kind(text, f"http_{answered.status}")

    def _answer(self, signal: Signal, answered: Answered) -> Answer:
        if answered.media_type == _MEDIA_TYPES["protobuf"] and protobuf.is_there():
            try:
                return protobuf.decode_answer(signal, answered.body)
            except protobuf.Malformed:
                return Answer()
        return answer_of(answered.body)

    def _tls(self) -> ssl.SSLContext:
        """Raises OSError or ValueError."""
        for key in ("ca_file", "certificate", "key"):
            path = getattr(self._options, key)
            if path is None:
                continue
            try:
                path.open("rb").close()
            except OSError as error:
                text = f"{key} {path}: {error.strerror}; name a file that the sidecar can read"
                raise RetryableError(text) from None
        ca_file = self._options.ca_file
        try:
            context = ssl.create_default_context(cafile=str(ca_file) if ca_file is not None else None)
            if self._options.certificate is not None:
                context.load_cert_chain(self._options.certificate, self._options.key)
        except (ssl.SSLError, OSError) as error:
            text = f"`ca_file`, `certificate` or `key` is no PEM, or they don't belong together ({error})"
            raise RetryableError(text) from None
        return context

    def abort(self) -> None:
        self._server.abort()

    def close(self) -> None:
        self._server.drop()
