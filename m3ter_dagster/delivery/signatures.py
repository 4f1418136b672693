"""Ed25519 signatures of manifests: made with a private key that only the exporter has, checked with its public key."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from m3ter_dagster.config import SIGNING_KEY, ConfigError, Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SUFFIX = ".sig"
"""Behind the address of a manifest: where its signature is. It is the 64 bytes alone, as openssl reads them."""
LONGEST = 64
A_PRIVATE_KEY = "write one that `openssl genpkey -algorithm ed25519` makes, in PEM without a password"
A_PUBLIC_KEY = "give one that `openssl pkey -in KEY -pubout` makes of the exporter's key, in PEM"
NO_CRYPTOGRAPHY = "needs the package cryptography: pip install cryptography"


class KeyUnusable(Exception):
    """Why a key can neither sign nor check, as the end of a sentence; nothing of the key is in it."""


class Signer:
    """Signs with one private key."""

    def __init__(self, pem: str) -> None:
        """KeyUnusable if that is no private key, or if cryptography is not installed."""
        serialization, ed25519 = _cryptography()
        try:
            key = serialization.load_pem_private_key(pem.encode(), password=None)
        except (TypeError, ValueError):  # the first is for a key that has a password
            key = None
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise KeyUnusable(f"is no Ed25519 key; {A_PRIVATE_KEY}")
        self._key = key
        self.fingerprint = _fingerprint(key.public_key())

    def sign(self, content: bytes) -> bytes:
        return self._key.sign(content)


class Verifier:
    """Checks what the owner of one public key has signed."""

    def __init__(self, pem: bytes) -> None:
        """KeyUnusable if that is no public key, or if cryptography is not installed."""
        serialization, ed25519 = _cryptography()
        try:
            key = serialization.load_pem_public_key(pem)
        except ValueError:
            key = None
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise KeyUnusable(f"is no Ed25519 public key; {A_PUBLIC_KEY}")
        self._key = key
        self.fingerprint = _fingerprint(key)

    def has_signed(self, content: bytes, signature: bytes) -> bool:
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(signature, content)
        except InvalidSignature:
            return False
        return True


def signer_of(settings: Settings) -> Signer | None:
    """What signs manifests, if the environment has a key for that; ConfigError if it is none."""
    pem = settings.signing_pem()
    try:
        return Signer(pem) if pem else None
    except KeyUnusable as error:
        raise ConfigError(f"the environment has a {SIGNING_KEY} that {error}.") from None


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ModuleNotFoundError:
        raise KeyUnusable(NO_CRYPTOGRAPHY) from None
    return serialization, ed25519


def _fingerprint(key: Ed25519PublicKey) -> str:
    """The key's name for people and manifests: the SHA-256 of its DER, as openssl and others give it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return f"sha256:{sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()}"
