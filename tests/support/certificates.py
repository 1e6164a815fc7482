"""Certificates as an operator would have them, made for one test."""

from __future__ import annotations

import ssl
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


class Authority:
    """A certificate authority of its own, which writes PEM files into a directory."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.path = directory / f"{name}-ca.pem"
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        certificate = (
            self._builder(name, self.key, DAY, DAY)
            .add_extension(constraints, critical=True)
            .add_extension(_may_sign(), critical=True)
        )
        self.path.write_bytes(_pem(certificate.sign(self.key, hashes.SHA256())))

    def issue(
        self,
        name: str,
        *,
        since: timedelta = DAY,
        ends: timedelta = DAY,
        server: bool = False,
        host: str = "localhost",
        address: str = "127.0.0.1",
    ) -> Path:
        """NAME.pem and NAME.key, valid from `since` ago until `ends` from now; answers with the first."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        builder = self._builder(name, key, since, ends).add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if server:
            names = [x509.DNSName(host), x509.IPAddress(ip_address(address))]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        path = self.directory / f"{name}.pem"
        path.with_suffix(".key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        path.write_bytes(_pem(builder.sign(self.key, hashes.SHA256())))
        return path

    def _builder(
        self, name: str, key: ec.EllipticCurvePrivateKey, since: timedelta, ends: timedelta
    ) -> x509.CertificateBuilder:
        now = datetime.now(timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - since)
            .not_valid_after(now + ends)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )

    def context(self, client: Path | None = None) -> ssl.SSLContext:
        """What trusts this authority, and shows a client's certificate."""
        context = ssl.create_default_context(cafile=str(self.path))
        context.verify_flags |= ssl.VERIFY_X509_STRICT  # as Python 3.13 does by itself
        if client is not None:
            context.load_cert_chain(client, client.with_suffix(".key"))
        return context


def _may_sign() -> x509.KeyUsage:
    uses = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
    others = dict.fromkeys((*uses, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(key_cert_sign=True, crl_sign=True, **others)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
