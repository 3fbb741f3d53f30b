"""How headers travel: as a JSON object, which people can read if the values are plain and the app has no serializer."""

from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any

from .codec import CUSTOM, Codec
from .encodings import choose, survey, to_json
from .signature import MISSING
from .signing import SIGNATURE

# Replaces headers that are not plain JSON, or that a custom serializer encoded: codec and base64.
_PACKED = "ardiq-packed"


def pack(codec: Codec, name: str, headers: Mapping[str, Any]) -> str:
    """The headers of a call of task `name`, encoded.

    Raises:
        TypeError: one cannot be sent; the message names it.
        ValueError: they are larger than the limit, or one has a reserved name.
    """
    for taken in (_PACKED, SIGNATURE):
        if taken in headers:
            raise ValueError(f"header {taken!r} of task {name!r} is reserved by Ardiq")
    if codec.is_custom:
        how, data = CUSTOM, codec.serialize(headers, name)
    else:
        how, data = _encode(codec, name, headers)
    if how:
        data = to_json({_PACKED: f"{how}:{b64encode(data).decode()}"})
    if len(data) > codec.limit:
        raise codec.too_large(f"the headers of task {name!r} are", len(data))
    return data.decode()


def _encode(codec: Codec, name: str, headers: Mapping[str, Any]) -> tuple[str, bytes]:
    for key in headers:
        if not isinstance(key, str):
            raise TypeError(f"the name of header {key!r} of task {name!r} must be a str")
    try:
        found = survey((headers,))
        if not found:
            return "", to_json(headers)
        encoding = choose([(f"header {key!r} of task {name!r}", each, MISSING) for key, each in headers.items()], found)
        return encoding.codec, encoding.encode(headers)
    except RecursionError:
        raise ValueError(f"a header of task {name!r} is nested too deeply, or contains itself") from None


def unpack(codec: Codec, headers: dict[str, Any]) -> dict[str, Any]:
    """The headers that were sent, decoded.

    Raises:
        ValueError: it cannot be read.
    """
    if _PACKED not in headers:
        return headers
    how, _, packed = str(headers[_PACKED]).partition(":")
    sent: dict[str, Any] = codec.decode_packed(b64decode(packed), how)
    return sent
