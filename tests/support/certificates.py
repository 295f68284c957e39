"""A throw-away certificate authority, and what it signs: for servers, and for each part of the lab's Kubernetes."""

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = timedelta(days=365)
_SIGNS = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Pair:
    """A private key and what belongs to it (a certificate, or the public key), as PEM text."""

    key: str
    public: str


class Authority:
    """Signs for servers and clients alike."""

    def __init__(self) -> None:
        self._key = _new_key()
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "lab")])
        public = self._key.public_key()
        certificate = (
            _builder(self._name, self._name, public)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .sign(self._key, SHA256())
        )
        self.certificate = certificate.public_bytes(Encoding.PEM).decode()

    def sign(
        self,
        name: str,
        *,
        group: str = "",
        hosts: tuple[str, ...] = (),
        addresses: tuple[IPv4Address, ...] = (),
        begins_in: timedelta = timedelta(),
        life: timedelta = _LIFE,
    ) -> Pair:
        """Return a new key and its certificate: for a user of Kubernetes, or a server under these names."""
        key = _new_key()
        attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
        subject = x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.DNSName(word) for word in hosts]
        names += [x509.IPAddress(address) for address in addresses]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        public = self._key.public_key()
        builder = (
            _builder(subject, self._name, key.public_key(), begins_in=begins_in, life=life)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, SHA256()).public_bytes(Encoding.PEM).decode()
        return Pair(_pem(key), certificate)

    def kubeconfig(self, server: str, pair: Pair) -> str:
        """Return a kubeconfig, everything in it, for the user that the certificate names."""
        cluster = {"server": server, "certificate-authority-data": _encoded(self.certificate)}
        user = {"client-certificate-data": _encoded(pair.public), "client-key-data": _encoded(pair.key)}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "lab", "cluster": cluster}],
            "users": [{"name": "lab", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "current-context": "lab",
        }
        return json.dumps(content, indent=2) + "\n"


def key_pair() -> Pair:
    """Return a key with its public half, as tokens of service accounts are signed and checked with."""
    key = _new_key()
    return Pair(_pem(key), key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    *,
    begins_in: timedelta = timedelta(),
    life: timedelta = _LIFE,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC) + begins_in
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + life)
    )


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
