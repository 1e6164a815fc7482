"""TLS for a listener: its certificate, its key, and whose clients' certificates it takes.

Imported only where a `tls:` listener is: it needs the packages of the extra `tls`.
"""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from wafermon.model.settings import Port

_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2; what 1.3 has is all good."""
_OPTIONS = SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE


@implementer(IOpenSSLContextFactory)
class Credentials:
    """A listener's TLS context; connections keep the one that they began with."""

    log = Logger()

    def __init__(self, listener: Port) -> None:
        """Reads the files. Raises ValueError with the file, and what is wrong with it."""
        assert listener.certificate is not None
        assert listener.key is not None
        self._certificate = listener.certificate
        self._key = listener.key
        self._client_ca = listener.client_ca
        self._seen = self._signature()
        self._looked_at: object = self._seen
        self.context = self._load()

    def getContext(self) -> SSL.Context:
        """What Twisted asks at each connection."""
        return self.context

    def wrap(self, factory: Factory) -> TLSMemoryBIOFactory:
        """The factory of this listener's connections."""
        return TLSMemoryBIOFactory(self, False, factory)

    def refresh(self) -> bool:
        """Read the files again where they have changed, and not since the last look: they may be just being written.
        Tells whether they are new; files that can't be used are said once and change nothing."""
        before, self._looked_at = self._looked_at, self._signature()
        if self._looked_at == self._seen or self._looked_at != before:
            return False
        self._seen = self._looked_at
        try:
            self.context = self._load()
        except ValueError as error:
            self.log.error("The certificate stays the old one: {problem}", problem=str(error))
            return False
        self.log.info("Read {path} again: new connections get the new certificate", path=str(self._certificate))
        return True

    def _signature(self) -> object:
        return tuple(_signature(path) for path in (self._certificate, self._key, self._client_ca) if path)

    def _load(self) -> SSL.Context:
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(_CIPHERS)
        context.set_options(_OPTIONS)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # The key first: a key that does not fit is then told from one that can't be read.
        _use("key", self._key, context.use_privatekey_file, "an unencrypted PEM private key")
        _use("certificate", self._certificate, context.use_certificate_chain_file, "a PEM certificate chain")
        try:
            context.check_privatekey()
        except SSL.Error:
            raise ValueError(f"key {self._key} does not belong to the certificate {self._certificate}") from None
        if self._client_ca is not None:
            _use("client_ca", self._client_ca, context.load_verify_locations, "PEM certificates of authorities")
            context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _as_openssl_says)
        self._warn(context)
        return context

    def _warn(self, context: SSL.Context) -> None:
        """Say what will make clients refuse us."""
        certificate = SSL.Connection(context, None).get_certificate()
        ends = certificate.to_cryptography().not_valid_after_utc if certificate else None
        if ends is not None and ends < datetime.now(timezone.utc):
            message = "The certificate {path} expired on {day}: clients will refuse it. Put a new one in its place"
            self.log.error(message, path=str(self._certificate), day=f"{ends:%Y-%m-%d}")


def _use(key: str, path: Path, load: Any, wanted: str) -> None:
    try:
        with path.open("rb"):
            pass  # OpenSSL's own words for a missing file tell nobody anything
        load(os.fspath(path))
    except OSError as error:
        raise ValueError(f"{key} {path}: {error.strerror or error}") from None
    except SSL.Error:
        raise ValueError(f"{key} {path}: expected {wanted}") from None


def _as_openssl_says(connection: Any, certificate: Any, error: int, depth: int, ok: int) -> bool:
    return bool(ok)


def _signature(path: Path) -> object:
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
