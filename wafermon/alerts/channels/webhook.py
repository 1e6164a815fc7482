"""Alarms by POST, in the shape that the receiver knows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from io import BytesIO
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, ResponseDone
from twisted.web.http_headers import Headers
from zope.interface import implementer

from wafermon.alerts.shapes import as_alertmanager, as_json, as_pagerduty, as_slack
from wafermon.interfaces import (
    Alarm,
    ChannelContext,
    FilePath,
    IChannel,
    IChannelFactory,
    Kind,
    Options,
    PermanentError,
    RetryableError,
)
from wafermon.model.errors import printable
from wafermon.model.messages import dumps

SECONDS = 30.0
"""For one request, its answer included."""
ANSWER_BYTES = 500
RESOLVE_SECONDS = 300.0
"""For so long an alert of Alertmanager lasts unless it is sent again."""
REPEAT_SECONDS = 60.0
PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"
NEEDS_TLS = "https needs `pip install 'wafermon[tls]'`"
_URL = re.compile(r"https?://[!-~]+")


def _url(value: str) -> str:
    """Raises ValueError, which does not repeat the URL: it may be a secret."""
    if not value:
        return value
    try:
        parts = urlsplit(value)
        good = bool(_URL.fullmatch(value) and parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("expected a URL such as https://example.org/hook")
    if "@" in parts.netloc:
        raise ValueError("can't hold a user and a password; give `Authorization` in headers")
    if parts.scheme == "https" and find_spec("OpenSSL") is None:
        raise ValueError(NEEDS_TLS)
    return value


def _headers(value: Mapping[str, str]) -> Mapping[str, str]:
    for name, text in value.items():
        if not re.fullmatch(r"[A-Za-z0-9-]{1,128}", name) or not all(" " <= one <= "~" for one in text):
            raise ValueError(f"expected headers in printable ASCII, such as Authorization, got {name!r}")
    return value


class WebhookOptions(Options):
    """A POST for each alarm."""

    format: Literal["json", "slack", "pagerduty", "alertmanager"] = Field(
        default="json",
        description="The shape: `json` has everything; `slack` also fits Mattermost and others; `pagerduty` is Events API v2.",
    )
    url: Annotated[str, AfterValidator(_url), Kind("a URL")] = Field(
        default="",
        description="Where to. Of Alertmanager without `/api/v2/alerts`; PagerDuty's own where it is left out.",
        repr=False,
    )
    url_file: FilePath | None = Field(default=None, description="A file that holds the URL, where that is a secret.")
    routing_key: str = Field(
        default="", description="PagerDuty's integration key, such as `${PAGERDUTY_KEY}`.", repr=False
    )
    routing_key_file: FilePath | None = Field(default=None, description="A file that holds it.")
    headers: Annotated[Mapping[str, str], AfterValidator(_headers), Kind("a mapping of text")] = Field(
        default={},
        description="What each request carries beside, such as `Authorization: Bearer ${TOKEN}`.",
        repr=False,
    )

    @field_validator("url_file")
    @classmethod
    def _one_place(cls, value: Any, info: Any) -> Any:
        if value is not None and info.data.get("url"):
            raise ValueError("can't stand beside url; give one of the two")
        return value


def missing(options: WebhookOptions) -> str:
    """What is missing; empty where nothing is."""
    if options.format == "pagerduty":
        if bool(options.routing_key) == (options.routing_key_file is not None):
            return "give one of routing_key, routing_key_file"
        own = not (options.url or options.url_file)
        return NEEDS_TLS if own and find_spec("OpenSSL") is None else ""
    return "" if options.url or options.url_file is not None else "give url or url_file"


class _NotNow(RetryableError):
    """Leave the receiver alone for `wait` seconds."""

    def __init__(self, text: str, wait: float) -> None:
        super().__init__(text)
        self.wait = wait


@implementer(IChannel)
class WebhookChannel:
    def __init__(self, options: WebhookOptions, context: ChannelContext) -> None:
        self._options = options
        self._context = context
        self.resolves = options.format != "slack"  # a chat has nothing to close: it is told of what `on` names
        self.repeat = REPEAT_SECONDS if options.format == "alertmanager" else 0.0
        self._pool = HTTPConnectionPool(context.reactor, persistent=False)  # type: ignore[no-untyped-call]
        self._agent = Agent(context.reactor, connectTimeout=SECONDS, pool=self._pool)  # type: ignore[no-untyped-call]
        self._sending: Deferred[Any] | None = None

    def send(self, alarm: Alarm) -> Deferred[None]:
        self._sending = sending = Deferred.fromCoroutine(self._send(alarm))
        sending.addTimeout(SECONDS, self._context.reactor, lambda *_: _late())
        return sending

    async def _send(self, alarm: Alarm) -> None:
        url, body = self._request(alarm)
        headers = Headers(
            {"content-type": ["application/json"], "user-agent": ["wafermon"], "x-wafermon-id": [ascii(alarm.id)[1:-1]]}
        )
        for name, value in self._options.headers.items():
            headers.setRawHeaders(name, [value])
        try:
            response = await self._agent.request(
                b"POST",
                url.encode(),
                headers,
                FileBodyProducer(BytesIO(dumps(body).encode())),  # type: ignore[no-untyped-call]
            )
            reading = _Beginning()
            response.deliverBody(reading)  # type: ignore[no-untyped-call]
            said = await reading.done
        except Exception as error:  # noqa: BLE001  # refused, reset, no such name, a bad certificate, …: it may be over soon
            reasons = getattr(error, "reasons", None)
            text = (
                "; ".join(one.getErrorMessage() for one in reasons) if reasons else str(error) or type(error).__name__
            )
            raise RetryableError(f"no answer: {printable(text)}") from None
        status = response.code
        if 200 <= status < 300:
            return
        text = f"status {status}" + (f": {said}" if said else "")
        if status in (408, 425, 429) or status >= 500:
            after = response.headers.getRawHeaders("retry-after", [""])[0]
            raise _NotNow(text, wait_of(after, self._context.wall()))
        raise PermanentError(text)

    def _request(self, alarm: Alarm) -> tuple[str, Any]:
        options = self._options
        url = options.url or _address(options.url_file)
        if options.format == "pagerduty":
            return url or PAGERDUTY, as_pagerduty(alarm, options.routing_key or _secret(options.routing_key_file))
        if options.format == "slack":
            return url, as_slack(alarm)
        if options.format == "alertmanager":
            if not url.rstrip("/").endswith("/api/v2/alerts"):
                url = url.rstrip("/") + "/api/v2/alerts"
            return url, as_alertmanager(alarm, self._context.wall(), RESOLVE_SECONDS)
        return url, as_json(alarm)

    def close(self) -> Deferred[None]:
        if self._sending is not None and not self._sending.called:
            self._sending.addErrback(lambda _: None)
            self._sending.cancel()
        closing: Deferred[None] = self._pool.closeCachedConnections()  # type: ignore[no-untyped-call]
        return closing


def _late() -> None:
    raise RetryableError(f"no answer within {SECONDS:g} s")


class _Beginning(Protocol):
    """Reads the beginning of an answer, and releases it then."""

    def __init__(self) -> None:
        self.done: Deferred[str] = Deferred()
        self._said = b""

    def dataReceived(self, data: bytes) -> None:
        self._said += data
        if len(self._said) >= ANSWER_BYTES and self.transport is not None:
            getattr(self.transport, "abortConnection", self.transport.loseConnection)()

    def connectionLost(self, reason: Failure = ResponseDone) -> None:  # type: ignore[assignment]
        self.done.callback(printable(self._said[:ANSWER_BYTES].decode(errors="replace").strip()))


def _address(path: Any) -> str:
    """The URL that a file holds."""
    try:
        return _url(_secret(path))
    except ValueError as error:
        raise RetryableError(f"{path}: {error}") from None


def _secret(path: Any) -> str:
    """The first line of a file, read each time so that a new secret needs no reload."""
    if path is None:
        return ""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RetryableError(f"can't read {path}: {error}") from None
    if not lines or not lines[0].strip():
        raise RetryableError(f"{path} holds nothing")
    return str(lines[0].strip())


def wait_of(retry_after: str, now: float) -> float:
    """Retry-After in seconds or as a date -> seconds, an hour at most."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), 3600.0)
    try:
        return min(max(parsedate_to_datetime(text).timestamp() - now, 0.0), 3600.0) if text else 0.0
    except (TypeError, ValueError, OverflowError):
        return 0.0


@implementer(IChannelFactory)
class WebhookFactory:
    """`plugin: webhook`."""

    name = "webhook"
    options = WebhookOptions

    def check(self, options: WebhookOptions) -> str:
        return missing(options)

    def build(self, options: WebhookOptions, context: ChannelContext) -> IChannel:
        return WebhookChannel(options, context)


webhook = WebhookFactory()
