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

    LENGTH = 22
    """How many characters a signature has."""

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
        if not self._is_ours(message, given.encode(errors="replace")):
            raise BadSignature(f"this call of {name!r} was signed with another key, or changed since it was enqueued")
        return without_signature(headers)

    def sign_value(self, queue: str, task_id: str, place: str, codec: str, data: bytes) -> str:
        """The signature of a value that a running task gets: the result of one of its steps, or a signal."""
        return _signature(self._keys[0], _value_message(queue, task_id, place, codec, data))

    def check_value(
        self, queue: str, task_id: str, place: str, codec: str, data: bytes, given: bytes | None, label: str
    ) -> None:
        """Accept or refuse such a value, before it is decoded. `label`: what it is for people.

        Raises:
            BadSignature: it was not signed with a key of this app for this task and place, or was changed since.
        """
        if given is None:
            if self._takes_unsigned:
                return
            raise BadSignature(f"{label} has no signature, but the app has a signing_key")
        if not self._is_ours(_value_message(queue, task_id, place, codec, data), given):
            raise BadSignature(f"{label} was signed with another key, for something else, or changed since")

    def sign_token(self, queue: str, text: bytes) -> str:
        """The signature of a token."""
        return _signature(self._keys[0], _joined(b"ardiq-token-1", queue.encode(), text))

    def is_token(self, queue: str, text: bytes, given: bytes) -> bool:
        """Whether the signature of a token is one of this app, for this queue."""
        return self._is_ours(_joined(b"ardiq-token-1", queue.encode(), text), given)

    def _is_ours(self, message: bytes, given: bytes) -> bool:
        from hmac import compare_digest

        expected = [_signature(key, message).encode() for key in self._keys]
        return any(compare_digest(each, given) for each in expected)


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
    """What is signed of a call."""
    parts = [queue.encode(), name.encode(), args or b"[]", kwargs, codec.encode(), to_json(headers) if headers else b""]
    return _joined(b"ardiq-call-1", *parts)


def _value_message(queue: str, task_id: str, place: str, codec: str, data: bytes) -> bytes:
    """What is signed of a value."""
    return _joined(b"ardiq-value-1", queue.encode(), task_id.encode(), place.encode(), codec.encode(), data)


def _joined(*parts: bytes) -> bytes:
    """Each part after its length, so that bytes cannot move from one part to the next."""
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)


def _signature(key: bytes, message: bytes) -> str:
    from base64 import urlsafe_b64encode
    from hmac import digest as hmac  # OpenSSL: not for an app without keys

    digest = hmac(key, message, "sha256")[:_SIGNATURE_BYTES]
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
