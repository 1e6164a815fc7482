"""Connections to another sidecar: where a URL leads, and the certificates of TLS."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

CONNECT_SECONDS = 15.0
_URL = re.compile(r"(tcp|tls)://(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")
WANTED = "expected tls://HOST:PORT, tcp://HOST:PORT or unix:PATH"


class Place(NamedTuple):
    """Where another sidecar listens."""

    kind: str
    """``tcp``, ``tls`` or ``unix``."""
    host: str
    """Or the path of a socket."""
    port: int = 0


def parse_url(url: str) -> Place:
    """Raises ValueError for what is none."""
    if url.startswith("unix:/"):
        return Place("unix", url.removeprefix("unix:"))
    match = _URL.fullmatch(url)
    if match is None or not 0 < int(match[3]) < 1 << 16:
        raise ValueError(f"{WANTED}, got {url!r}")
    return Place(match[1], match[2].strip("[]"), int(match[3]))


class Certificates(NamedTuple):
    """The files of TLS, all PEM."""

    ca: Path | None = None
    """The authorities that the other's certificate must come from; None: those of this machine."""
    certificate: Path | None = None
    """Our own, where the other asks for one, with the chain after it."""
    key: Path | None = None
    name: str = ""
    """What the other's certificate is made out to; empty: the host of the URL."""


def endpoint_to(place: Place, certificates: Certificates, reactor: Any) -> IStreamClientEndpoint:
    """How to connect. Reads the files each time, so that new ones count from the next connection on. Raises ValueError with the
    file, and what is wrong with it."""
    if place.kind == "unix":
        return UNIXClientEndpoint(reactor, place.host, CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, place.host, place.port, CONNECT_SECONDS)
    if place.kind == "tls":
        endpoint = wrapClientTLS(_options(certificates, certificates.name or place.host), endpoint)
    return endpoint


def _options(certificates: Certificates, name: str) -> Any:
    from OpenSSL import crypto
    from twisted.internet import ssl

    trust: Any = None
    if certificates.ca is not None:
        try:
            found = re.findall(
                rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----",
                _read("ca_file", certificates.ca),
                re.DOTALL,
            )
            trust = ssl.trustRootFromCertificates([ssl.Certificate.loadPEM(one) for one in found])  # type: ignore[no-untyped-call]
        except crypto.Error:
            found = []
        if not found:
            raise ValueError(f"ca_file {certificates.ca}: expected PEM certificates of authorities")
    own, chain = None, list[Any]()
    if certificates.certificate is not None and certificates.key is not None:
        pem, key = _read("certificate", certificates.certificate), _read("key", certificates.key)
        blocks = re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem, re.DOTALL)
        try:
            own = ssl.PrivateCertificate.fromCertificateAndKeyPair(  # type: ignore[no-untyped-call]
                ssl.Certificate.loadPEM(blocks[0] if blocks else b""),
                ssl.KeyPair.load(key, crypto.FILETYPE_PEM),
            )
            chain = [crypto.load_certificate(crypto.FILETYPE_PEM, one) for one in blocks[1:]]
        except crypto.Error:
            raise ValueError(
                f"certificate {certificates.certificate}: expected a PEM certificate and, in {certificates.key}, its unencrypted key"
            ) from None
    extra = {"extraCertChain": chain} if chain else {}
    return ssl.optionsForClientTLS(name, trust, own, extraCertificateOptions=extra)


def _read(key: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{key} {path}: {error.strerror or error}") from None
