"""Whether a manifest is the one that the owner of a key has signed."""

from __future__ import annotations

from m3ter_dagster.delivery.signatures import LONGEST, SUFFIX, Verifier
from m3ter_dagster.delivery.store import ObjectMissing, ObjectTooLarge, Store


class NotSigned(Exception):
    """The manifest is not what the owner of the key has signed."""


def check_signature(content: bytes, signed_by: str | None, uri: str, *, store: Store, key: Verifier) -> None:
    """NotSigned says what is wrong with the signature of the manifest at that uri, which says itself who signed it."""
    try:
        signature = store.read(f"{uri}{SUFFIX}", at_most=LONGEST)
    except ObjectMissing:
        words = "its exporter does not sign, or the signature was removed" if signed_by is None else "it was removed"
        raise NotSigned(f"there is no {uri}{SUFFIX}; {words}.") from None
    except ObjectTooLarge:
        signature = b""
    if key.has_signed(content, signature):
        return
    if signed_by not in (None, key.fingerprint):
        raise NotSigned(f"it says that it is signed with the key {signed_by}, and the one given is {key.fingerprint}.")
    raise NotSigned(
        f"it is not what was signed with the key {key.fingerprint}: it or its signature was altered afterwards, or "
        "it was signed with another key."
    )
