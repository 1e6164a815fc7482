"""What a server answers -> what that means for the messages. Pure.

By OTLP's specification a request is sent again after 429, 502, 503, 504 and a lost connection, and after nothing else.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import msgspec

from wafermon.model.errors import printable
from wafermon.wire.otlp.shapes import Answer, Failure

RETRYABLE = frozenset({429, 502, 503, 504})
TOO_LARGE = 413
WAIT_MOST = 900.0
"""Seconds: no server is left alone for longer, whatever its Retry-After says."""
_ADVICE = {
    401: "correct `headers`, or the proxy's credentials",
    403: "correct `headers`, or what they may write",
    404: "`url` is without /v1/logs: that is added; see that the server takes this signal, or leave it out of `signals`",
    405: "see that `url` is that of an OTLP receiver over HTTP",
    413: "lower the backend's batch.bytes",
    415: "try another `encoding`",
    429: "the server wants fewer requests: raise batch.messages and batch.age if it stays so",
}
_decode_answer = msgspec.json.Decoder(Answer).decode
_decode_failure = msgspec.json.Decoder(Failure).decode


def answer_of(body: bytes) -> Answer:
    """A success in JSON; what is no such thing says nothing."""
    try:
        return _decode_answer(body) if body else Answer()
    except msgspec.DecodeError:
        return Answer()


def reason_of(body: bytes, media_type: str) -> str:
    """What a server says of its refusal; may be empty."""
    if media_type == "application/json":
        try:
            return printable(_decode_failure(body).message).rstrip(".")
        except msgspec.DecodeError:
            pass
    if media_type.startswith("text/plain"):
        return printable(body[:300].decode(errors="replace").strip()).rstrip(".")
    return ""


def in_words(status: int, reason: str) -> str:
    """For a person: what was said, and what to do."""
    said = f"status {status}" + (f": {reason}" if reason else "")
    advice = _ADVICE.get(status, "")
    if not advice and 300 <= status < 400:
        advice = "redirects are not followed: write the address that it leads to"
    if not advice and status >= 500:
        advice = "look at the server's log"
    return f"{said}; {advice}" if advice else said


def wait_of(retry_after: str | None, now: float) -> float:
    """Retry-After in seconds or as a date -> how many seconds to leave the server alone. `now` is since the Unix epoch."""
    if not retry_after:
        return 0.0
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), WAIT_MOST)
    try:
        return min(max(parsedate_to_datetime(text).timestamp() - now, 0.0), WAIT_MOST)
    except (TypeError, ValueError, OverflowError):
        return 0.0
