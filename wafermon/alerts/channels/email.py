"""Alarms by mail. STARTTLS is used where the server offers it, and demanded where a user and a password are given."""

from __future__ import annotations

import hashlib
import re
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from importlib.util import find_spec
from io import BytesIO
from socket import gethostname
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator
from twisted.internet.defer import Deferred
from twisted.mail.smtp import ESMTPSenderFactory, SMTPClientError, SMTPConnectError
from zope.interface import implementer

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

SECONDS = 60.0
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+")


def _address(value: str) -> str:
    if value and not _ADDRESS.fullmatch(value):
        raise ValueError(f"expected an address such as fab@example.org, got {value!r}")
    return value


def _addresses(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("expected at least one address")
    return tuple(map(_address, value))


def _server(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme == "smtp" and parts.hostname and parts.path in ("", "/") and "@" not in parts.netloc
        parts.port  # noqa: B018  # it raises ValueError
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"expected a server such as smtp://mail.example.org:25, got {value!r}")
    return value


class EmailOptions(Options):
    """A mail for each alarm."""

    to: Annotated[tuple[str, ...], AfterValidator(_addresses), Kind("a list of addresses")] = Field(
        description="Whom to.", examples=["[fab@example.org]"], strict=False
    )
    sender: Annotated[str, AfterValidator(_address), Kind("an address")] = Field(
        default="", description="Whom from.", json_schema_extra={"default": "`wafermon@` and this machine's name"}
    )
    smtp: Annotated[str, AfterValidator(_server), Kind("a URL")] = Field(
        default="smtp://localhost:25", description="The server; its port is 25 where none is given."
    )
    starttls: bool = Field(
        default=False, description="Send nothing without TLS. It needs `pip install 'wafermon[tls]'`."
    )
    user: str = Field(default="", description="Who the sidecar is there. TLS is demanded then.")
    password: str = Field(default="", description="Such as `${SMTP_PASSWORD}`.", repr=False)
    password_file: FilePath | None = Field(default=None, description="A file that holds it.")

    ca_file: FilePath | None = Field(
        default=None,
        description="PEM of the authority that the server's certificate must come from.",
        json_schema_extra={"default": "the system's"},
    )

    @field_validator("starttls")
    @classmethod
    def _installed(cls, value: bool) -> bool:
        if value and find_spec("OpenSSL") is None:
            raise ValueError("needs `pip install 'wafermon[tls]'`")
        return value


@implementer(IChannel)
class EmailChannel:
    resolves = True

    def __init__(self, options: EmailOptions, context: ChannelContext) -> None:
        self._options = options
        self._context = context
        self._connector: Any = None

    def send(self, alarm: Alarm) -> Deferred[None]:
        return Deferred.fromCoroutine(self._send(alarm))

    async def _send(self, alarm: Alarm) -> None:
        options = self._options
        try:
            password = options.password or (options.password_file.read_text().strip() if options.password_file else "")
        except (OSError, UnicodeDecodeError) as error:
            raise RetryableError(f"can't read {options.password_file}: {error}") from None
        done: Deferred[Any] = Deferred()
        secure = options.starttls or bool(options.user)
        server = urlsplit(options.smtp)
        factory: Any = ESMTPSenderFactory(  # type: ignore[no-untyped-call]
            options.user.encode() or None,
            password.encode() or None,
            self._sender,
            list(options.to),
            BytesIO(self._mail(alarm)),
            done,
            retries=0,
            timeout=SECONDS,
            contextFactory=self._tls(str(server.hostname)),
            heloFallback=True,
            requireAuthentication=bool(options.user),
            requireTransportSecurity=secure,
            hostname=server.hostname,
        )
        self._connector = self._context.reactor.connectTCP(server.hostname, server.port or 25, factory, timeout=SECONDS)
        try:
            await done
        except SMTPClientError as error:
            text = printable(str(error) or type(error).__name__)
            of_the_mail = not isinstance(error, SMTPConnectError) and error.code not in (530, 534, 535, 538)
            if of_the_mail and 500 <= (error.code or 0) < 600:
                raise PermanentError(text) from None
            raise RetryableError(text) from None
        except Exception as error:  # noqa: BLE001  # no server, a lost connection, a bad certificate, …
            raise RetryableError(printable(str(error) or type(error).__name__)) from None

    def _tls(self, host: str) -> Any:
        """How the server's certificate is checked; None is as the system does."""
        if self._options.ca_file is None:
            return None
        from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

        try:
            found = Certificate.loadPEM(self._options.ca_file.read_bytes())
        except Exception as error:  # noqa: BLE001  # no file, no certificate
            raise RetryableError(f"can't read {self._options.ca_file}: {error}") from None
        return optionsForClientTLS(host, trustRootFromCertificates([found]))  # type: ignore[no-untyped-call]

    @property
    def _sender(self) -> str:
        return self._options.sender or f"wafermon@{gethostname()}"

    def _mail(self, alarm: Alarm) -> bytes:
        mail = EmailMessage(policy=SMTP)
        mail["From"] = self._sender
        mail["To"] = ", ".join(self._options.to)
        mail["Date"] = formatdate(self._context.wall())
        mail["Subject"] = (
            f"[wafermon] {'resolved: ' if alarm.action == 'resolve' else ''}{alarm.kind}: {alarm.summary[:150]}"
        )
        number, thread = (
            hashlib.sha256(text.encode()).hexdigest()[:32] for text in (alarm.id + alarm.action, alarm.key)
        )
        mail["Message-ID"] = f"<{number}@wafermon>"
        mail["References"] = f"<{thread}@wafermon>"
        mail["Auto-Submitted"] = "auto-generated"
        mail["X-Wafermon-Id"] = printable(alarm.id)[:200]
        more = alarm.event.get("summaries") if alarm.kind == "digest" else None
        lines = [
            alarm.summary,
            *(f"- {one}" for one in more or ()),
            "",
            f"service: {alarm.source}",
            f"id: {alarm.id}",
            "",
            dumps(dict(alarm.event)),
        ]
        mail.set_content("\n".join(lines) + "\n")
        return mail.as_bytes()

    def close(self) -> Deferred[None]:
        if self._connector is not None:
            self._connector.disconnect()
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done


@implementer(IChannelFactory)
class EmailFactory:
    """`plugin: email`."""

    name = "email"
    options = EmailOptions

    def build(self, options: EmailOptions, context: ChannelContext) -> IChannel:
        return EmailChannel(options, context)


email = EmailFactory()
