"""Signatures: a worker that has the key runs only calls that were enqueued with it."""

from collections.abc import Iterable, Sequence
from typing import Any

from ..errors import BadSignature
from .encodings import from_json, to_json

SigningKey = str | bytes | Sequence[str | bytes]

SIGNATURE = "ardiq-signature"
"""The header that it travels as."""

_SHORTEST_KEY = 16
# Half of a SHA-256, which RFC 2104 allows: the header stays short enough for a compact record.
_SIGNATURE_BYTES = 16


class Signer:
    """Signs calls with the first key, and accepts signatures by any key.

    A signature is an HMAC-SHA256 over the queue, the task's name, its arguments and its other headers. The task's id,
    lane, times and tries are not signed: workers and operators change them.
    """

    def __init__(self, keys: Sequence[bytes], takes_unsigned: bool) -> None:
        self._keys = keys
        self._takes_unsigned = takes_unsigned

    def sign(self, queue: str, name: str, args: bytes, kwargs: bytes, codec: str, headers: dict[str, Any]) -> str:
        """The headers with the signature, as JSON."""
        message = _message(queue, name, args, kwargs, codec, headers)
        return to_json({SIGNATURE: _signature(self._keys[0], message), **headers}).decode()

    def check(self, queue: str, name: str, args: bytes, kwargs: bytes, codec: str, packed: bytes) -> dict[str, Any]:
        """Accept or refuse a call, before any of it is decoded. `packed`: its headers, encoded.

        Returns:
            Its headers without the signature.

        Raises:
            BadSignature: it was not signed with a key of this app, or was changed since.
        """
        try:
            headers = from_json(packed) if packed else {}
            given = headers.pop(SIGNATURE, None)
            message = _message(queue, name, args, kwargs, codec, headers)
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise BadSignature(f"the headers of this call of {name!r} were not written by a producer") from None
        if given is None and self._takes_unsigned:
            return without_signature(headers)
        if not isinstance(given, str):
            raise BadSignature(f"this call of {name!r} has no signature, but the worker has a signing_key")
        expected = [_signature(key, message).encode() for key in self._keys]
        from hmac import compare_digest

        if not any(compare_digest(each, given.encode(errors="replace")) for each in expected):
            raise BadSignature(f"this call of {name!r} was signed with another key, or changed since it was enqueued")
        return without_signature(headers)


def without_signature(headers: dict[str, Any]) -> dict[str, Any]:
    """The headers that hooks set."""
    headers.pop(SIGNATURE, None)
    return headers


def read_keys(value: Any) -> list[bytes]:
    """The keys from the option `signing_key`; the first one signs."""
    given = [value] if isinstance(value, str | bytes) else value
    if not isinstance(given, Iterable):
        raise TypeError(f"signing_key must be a str, bytes, or a list of them, not {type(value).__name__}")
    keys = []
    for each in given:
        if not isinstance(each, str | bytes):
            raise TypeError(f"each of signing_key must be a str or bytes, not {type(each).__name__}")
        keys.append(each.encode() if isinstance(each, str) else each)
    if not keys or min(map(len, keys)) < _SHORTEST_KEY:
        raise ValueError(f"signing_key must have at least {_SHORTEST_KEY} bytes, such as secrets.token_hex()")
    return keys


def _message(queue: str, name: str, args: bytes, kwargs: bytes, codec: str, headers: dict[str, Any]) -> bytes:
    """What is signed: each part after its length, so that bytes cannot move from one part to the next."""
    parts = [queue.encode(), name.encode(), args or b"[]", kwargs, codec.encode(), to_json(headers) if headers else b""]
    return b"".join(b"%d:%b" % (len(part), part) for part in [b"ardiq-call-1", *parts])


def _signature(key: bytes, message: bytes) -> str:
    from base64 import urlsafe_b64encode
    from hmac import digest as hmac  # OpenSSL: not for an app without keys

    digest = hmac(key, message, "sha256")[:_SIGNATURE_BYTES]
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
