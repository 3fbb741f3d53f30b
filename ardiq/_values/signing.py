"""Signatures: a worker that has the key runs only calls that were enqueued with it, with results that it, or another
one with the key, has signed.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..errors import BadSignature
from .encodings import from_json, to_json

SigningKey = str | bytes | Sequence[str | bytes]

SIGNATURE = "ardiq-signature"
"""The header that it travels as."""

SIGNED = ";signed="
"""What is behind the codec of a result, or of a call of a map, which has no headers of its own; then its signature."""

# What the codec of plain JSON, which is empty, is called then: what looks for an argument in a call knows it by that.
_JSON = "json"
RESULT = "result"
"""The place of what a task returned, among its values."""

_SHORTEST_KEY = 16
# Half of a SHA-256, which RFC 2104 allows: the header stays short enough for a compact record.
_SIGNATURE_BYTES = 16


class Place(NamedTuple):
    """What of a workflow's call is signed besides: its id, and which results are its arguments (`inputs.wiring`)."""

    id: str
    wiring: bytes


def at_home(queue: str, task_id: str) -> tuple[str, str]:
    """The queue of a task's workflow, and the id that it has there: in another queue that stands behind it."""
    workflow, mark, name = task_id.partition("~")
    name, _, home = name.partition("@")
    return (home, f"{workflow}~{name}") if mark and home else (queue, task_id)


class Signer:
    """Signs calls and results with the first key, and accepts signatures by any key.

    A signature of a call is an HMAC-SHA256 over the queue, the task's name, its arguments and its other headers. The
    task's id, lane, times and tries are not signed: workers and operators change them; but the id is where results are
    among the arguments. A signature of a result is one over the queue and the id of its task, as its workflow has them,
    its codec and its bytes.
    """

    def __init__(self, keys: Sequence[bytes], takes_unsigned: bool) -> None:
        self._keys = keys
        self._takes_unsigned = takes_unsigned

    def sign(
        self,
        queue: str,
        name: str,
        args: bytes,
        kwargs: bytes,
        codec: str,
        headers: dict[str, Any],
        place: Place | None = None,
    ) -> str:
        """The headers with the signature, as JSON."""
        message = _message(queue, name, args, kwargs, codec, headers, place)
        return to_json({SIGNATURE: _signature(self._keys[0], message), **headers}).decode()

    def sign_item(self, queue: str, name: str, args: bytes, codec: str, headers: dict[str, Any]) -> str:
        """The codec of a call of a map, with the signature behind it."""
        return _with_signature(codec, _signature(self._keys[0], _message(queue, name, args, b"", codec, headers)))

    def sign_value(self, queue: str, task_id: str, place: str, codec: str, data: bytes) -> str:
        """The codec of a value of a task, with the signature behind it. `place`: which one: `RESULT`, or a step or a
        signal that it gets.
        """
        return _with_signature(codec, _signature(self._keys[0], _value_message(queue, task_id, place, codec, data)))

    def check_value(self, queue: str, task_id: str, place: str, codec: str, data: bytes, label: str) -> str:
        """Accept or refuse such a value, before it is decoded. `label`: what it is for people.

        Returns:
            Its codec without the signature.

        Raises:
            BadSignature: nobody with a key of this app has signed it for this task and place, or it was changed since.
        """
        plain, given = split(codec)
        if not given:
            if self._takes_unsigned:
                return plain
            raise BadSignature(f"{label} has no signature, but the app has a signing_key")
        message = _value_message(queue, task_id, place, plain, data)
        if not self._is_ours(message, given.encode(errors="replace")):
            raise BadSignature(f"{label} was signed with another key, for something else, or changed since")
        return plain

    def check(
        self,
        queue: str,
        name: str,
        args: bytes,
        kwargs: bytes,
        codec: str,
        packed: bytes,
        place: Place | None = None,
    ) -> dict[str, Any]:
        """Accept or refuse a call, before any of it is decoded. `packed`: its headers, encoded.

        Returns:
            Its headers without the signature.

        Raises:
            BadSignature: it was not signed with a key of this app, or was changed since.
        """
        try:
            headers = from_json(packed) if packed else {}
            codec, behind = split(codec)
            given = headers.pop(SIGNATURE, None) or behind or None
            message = _message(queue, name, args, kwargs, codec, headers, place)
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise BadSignature(f"the headers of this call of {name!r} were not written by a producer") from None
        if given is None and self._takes_unsigned:
            return without_signature(headers)
        if not isinstance(given, str):
            raise BadSignature(f"this call of {name!r} has no signature, but the worker has a signing_key")
        if not self._is_ours(message, given.encode(errors="replace")):
            raise BadSignature(f"this call of {name!r} was signed with another key, or changed since it was enqueued")
        return without_signature(headers)

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


def split(codec: str) -> tuple[str, str]:
    """A codec, and the signature behind it; empty if there is none."""
    plain, mark, given = codec.rpartition(SIGNED)
    if not mark:
        return codec, ""
    return "" if plain == _JSON else plain, given


def bare(codec: str) -> str:
    """A codec without a signature."""
    return split(codec)[0] if SIGNED in codec else codec


def _with_signature(codec: str, signature: str) -> str:
    return f"{codec or _JSON}{SIGNED}{signature}"


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


def _message(
    queue: str,
    name: str,
    args: bytes,
    kwargs: bytes,
    codec: str,
    headers: dict[str, Any],
    place: Place | None = None,
) -> bytes:
    """What is signed of a call."""
    parts = [queue.encode(), name.encode(), args or b"[]", kwargs, codec.encode(), to_json(headers) if headers else b""]
    if place is None:
        return _joined(b"ardiq-call-1", *parts)
    return _joined(b"ardiq-node-1", *parts, place.id.encode(), place.wiring)


def _value_message(queue: str, task_id: str, place: str, codec: str, data: bytes) -> bytes:
    """What is signed of a value. One of a workflow's task is the same wherever that runs."""
    queue, task_id = at_home(queue, task_id)
    return _joined(b"ardiq-value-1", queue.encode(), task_id.encode(), place.encode(), codec.encode(), data)


def _joined(*parts: bytes) -> bytes:
    """Each part after its length, so that bytes cannot move from one part to the next."""
    return b"".join(b"%d:%b" % (len(part), part) for part in parts)


def _signature(key: bytes, message: bytes) -> str:
    from base64 import urlsafe_b64encode
    from hmac import digest as hmac  # OpenSSL: not for an app without keys

    digest = hmac(key, message, "sha256")[:_SIGNATURE_BYTES]
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
