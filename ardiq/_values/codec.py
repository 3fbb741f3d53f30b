"""How the calls and results of an app travel: what arrives equals what was sent, or the sender gets an error."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from .chunks import CHUNK, Chunk, unpack
from .chunks import receive as receive_chunk
from .encodings import (
    OTHER,
    SCALARS,
    TUPLE,
    TYPED,
    choose,
    encoding_of,
    from_json,
    stable,
    strict_json,
    survey,
    to_json,
)
from .signature import MISSING, PLAIN, Readers, Signature, invalid
from .signing import bare

CUSTOM = "custom"
_LARGEST_CHUNK = 65_536
NOT_SENT = "not-sent"
"""The codec of a result that could not be sent, where none is kept: the bytes are the reason."""


class NotSent(NamedTuple):
    """Stands for a result that could not be sent, where none is kept."""

    reason: str


class Codec:
    """The wire format of one app: the default, or the user's own serializer."""

    __slots__ = ("_keeps_results", "deserializer", "is_custom", "kept", "limit", "serializer")

    def __init__(
        self,
        serializer: Callable[[Any], bytes] | None,
        deserializer: Callable[[bytes], Any] | None,
        limit: int,
        keeps_results: bool = True,
    ) -> None:
        self.serializer = serializer
        self.deserializer = deserializer
        self.limit = limit
        self._keeps_results = keeps_results
        # Of the tasks that set it themselves: whether their results are kept at all.
        self.kept: dict[str, bool] = {}
        self.is_custom = serializer is not None

    def encode_call(
        self, name: str, signature: Signature | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[bytes, bytes, str]:
        """The bytes of the positional and of the keyword arguments (empty for none), and the codec.

        Raises:
            TypeError: an argument cannot be sent; the message names it.
            ValueError: they are larger than the limit.
        """
        codec = ""
        if self.serializer is not None:
            codec = CUSTOM
            a = self.serialize(list(args), name)
            k = self.serialize(kwargs, name) if kwargs else b""
        else:
            try:
                if SCALARS.issuperset(map(type, args)) and (
                    not kwargs or SCALARS.issuperset(map(type, kwargs.values()))
                ):
                    found = 0
                else:
                    found = survey(args)
                    if kwargs:
                        found |= survey(kwargs.values())
                encode: Callable[[Any], bytes] = to_json
                if found and not (found == TUPLE and (signature is None or not signature.wants_tuples)):
                    converts = signature is not None and signature.converts
                    encoding = choose(_labelled(name, signature, args, kwargs), found, converts)
                    encode, codec = encoding.encode, encoding.codec
                a = encode(args) if args or codec else b"[]"
                k = encode(kwargs) if kwargs else b""
            except RecursionError:
                raise ValueError(f"an argument of task {name!r} is nested too deeply, or contains itself") from None
        if len(a) + len(k) > self.limit:
            raise self.too_large(f"the arguments of task {name!r} are", len(a) + len(k))
        return a, k, codec

    def decode_call(
        self, args: bytes, kwargs: bytes, codec: str, signature: Signature | None
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments from their bytes, for people to see. Without a signature, typed values stay as in JSON.

        Raises:
            TypeError: an argument does not fit its annotation.
            ValueError: the bytes are not what the codec says.
        """
        codec = bare(codec)
        if not codec:
            a = from_json(args)
            k = from_json(kwargs) if kwargs else {}
        elif codec == CUSTOM:
            a = self._deserialize(args)
            k = self._deserialize(kwargs) if kwargs else {}
        elif codec == CHUNK:
            a, k = [[self.decode_call(part, b"", how, signature)[0] for how, part in unpack(codec, args)]], {}
        else:
            encoding = encoding_of(codec)
            a = encoding.decode(args)
            k = encoding.decode(kwargs) if kwargs else {}
            if encoding.typed and signature is not None:
                signature = signature.annotated(a, k)
            if encoding.typed and signature is not None:
                named = zip(signature.positional(len(a)), a, strict=True)
                a = [encoding.restore(v, hint, f"argument {label!r}") for (label, hint), v in named]
                k = {key: encoding.restore(v, signature.hint(key), f"argument {key!r}") for key, v in k.items()}
        if not isinstance(a, list | tuple) or not isinstance(k, dict):
            raise ValueError("the stored arguments are not a list and a mapping")
        return list(a), k

    def encode_fitting(
        self, name: str, signature: Signature | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[bytes, bytes, str]:
        """`encode_call`, if the task's worker will accept the call.

        Raises:
            TypeError: the arguments do not fit the function, or one does not fit its annotation or cannot be sent.
            ValueError: as `encode_call`.
        """
        if signature is None:
            return self.encode_call(name, signature, args, kwargs)
        kinds: Any = (type(args[0]),) if len(args) == 1 else tuple(map(type, args))
        if kwargs:
            kinds = kinds, tuple(kwargs), tuple(map(type, kwargs.values()))
        known = signature.fitting.get(kinds)  # never with a custom serializer
        if known is not None and (known is PLAIN or _is_plain_json(args, kwargs)):
            a = to_json(args) if args else b"[]"
            k = to_json(kwargs) if kwargs else b""
            if len(a) + len(k) > self.limit:
                raise self.too_large(f"the arguments of task {name!r} are", len(a) + len(k))
            if known is PLAIN or signature.inner is not None or _fits(known, a, k):
                return a, k, ""
        if known is None:
            signature.check(args, kwargs)
        call = self.encode_call(name, signature, args, kwargs)
        if not self.is_custom and signature.inner is None:
            self._rehearse(call, name, signature, known or signature.readers_of(args, kwargs))
        if known is None and not self.is_custom:
            signature.remember(kinds, args, kwargs)
        return call

    def encode_known(self, name: str, signature: Signature, args: Sequence[Any]) -> bytes | None:
        """The bytes of positional arguments, if such were sent before and JSON changes nothing in them."""
        kinds: Any = (type(args[0]),) if len(args) == 1 else tuple(map(type, args))
        if signature.fitting.get(kinds) is not PLAIN:
            return None
        a = to_json(args) if args else b"[]"
        if len(a) > self.limit:
            raise self.too_large(f"the arguments of task {name!r} are", len(a))
        return a

    def encode_readable(
        self, name: str, signature: Signature | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[bytes, bytes]:
        """`encode_fitting` for a call that is stored: as JSON, without the custom serializer, so that no codec need be
        stored with it.

        Raises:
            TypeError: as `encode_fitting`, or JSON cannot carry an argument.
        """
        codec = Codec(None, None, self.limit) if self.is_custom else self
        a, k, how = codec.encode_fitting(name, None if self.is_custom else signature, args, kwargs)
        if how and not (how == TYPED and signature is not None and signature.converts):
            raise TypeError(f"the arguments of task {name!r} must be JSON, but one is not")
        return a, k

    def _rehearse(
        self, call: tuple[bytes, bytes, str], name: str, signature: Signature, readers: Readers | None
    ) -> None:
        """Receive the call as its worker will, and refuse what the worker would refuse."""
        a, k, codec = call
        if codec and encoding_of(codec).typed:
            return  # choosing the codec has tried it
        if not codec and readers is not None and _fits(readers, a, k):
            return
        try:
            self.receive_call(a, k, codec, signature)
        except TypeError as error:
            raise TypeError(f"task {name!r}: {error}") from None

    def receive_call(
        self, args: bytes, kwargs: bytes, codec: str, signature: Signature | None
    ) -> tuple[list[Any], dict[str, Any]]:
        """The arguments from their bytes, for the function: each converted to its annotation, no matter who sent it.
        Those of a custom serializer stay as it returns them.

        Raises:
            InvalidArguments: they cannot be read, or do not fit.
            ValueError: an unknown codec.
        """
        if (not codec or codec == TYPED) and signature is not None:
            try:
                if not kwargs and (read := signature.reader) is not None:
                    return list(read(args)), {}
                a = strict_json(args)
                k = strict_json(kwargs) if kwargs else {}
                # Once for the shape of the call, then again by the types of that shape.
                if type(a) is list and type(k) is dict and (readers := signature.readers_of(a, k)) is not None:
                    return (
                        a if readers.args is None else list(readers.args(args)),
                        k if readers.kwargs is None else readers.kwargs(kwargs),
                    )
            except msgspec.DecodeError:
                pass  # explained below
        codec = bare(codec)
        if codec[:5] == "with+":
            from .inputs import receive

            return receive(self, args, kwargs, codec, signature)
        if codec == CHUNK:
            return receive_chunk(self, args, signature), {}
        encoding = None if codec == CUSTOM else encoding_of(codec)
        try:
            a, k = self.decode_call(args, kwargs, codec, None)
        except ValueError as error:
            if encoding is None:
                raise
            raise invalid(f"the stored arguments cannot be read: {error}") from None
        if signature is None:
            return a, k
        return signature.convert(a, k, encoding.str_keys if encoding else None, encoding is not None and encoding.typed)

    def receiver(self, signature: Signature | None) -> Callable[[bytes], Sequence[Any]]:
        """`receive_call` for most calls, which have positional arguments in JSON. It may also return the defaults of
        arguments that were left out.
        """
        read = None if signature is None else signature.call_reader

        def receive(args: bytes) -> Sequence[Any]:
            if read is not None:
                try:
                    return read(args)
                except msgspec.DecodeError:
                    pass  # explained below
            return self.receive_call(args, b"", "", signature)[0]

        return receive

    def keeps(self, name: str) -> bool:
        """Whether the task's results are kept at all."""
        return self.kept.get(name, self._keeps_results)

    def encode_result(self, name: str, signature: Signature | None, value: Any) -> tuple[bytes, str]:
        """The bytes of a task's result, and the codec. If no result is kept, one that cannot be sent is replaced by the
        reason, and does not fail the task.

        Raises:
            InvalidResult: it cannot be sent, or is larger than the limit.
        """
        if value is None and not self.is_custom:
            return b"null", ""
        if type(value) is NotSent:
            return value.reason.encode(), NOT_SENT
        try:
            return self._encode_result(name, signature, value)
        except Exception as error:
            refusal = _invalid_result(name, error)
            if self.keeps(name):
                raise refusal from error
            return str(refusal).encode(errors="backslashreplace"), NOT_SENT

    def _encode_result(self, name: str, signature: Signature | None, value: Any) -> tuple[bytes, str]:
        if type(value) is Chunk:
            data, codec = value.data, CHUNK
        elif self.serializer is not None:
            data, codec = self.serialize(value, name), CUSTOM
        else:
            hint = MISSING if signature is None else signature.returns
            data, codec, typed = _encode_value(f"the result of task {name!r}", value, hint)
            codec = f"{codec}:{name}" if typed else codec
        if len(data) > self.limit:
            raise self.too_large(f"the result of task {name!r} is", len(data))
        return data, codec

    def encode_chunk(self, name: str, value: Any) -> tuple[str, bytes]:
        """The codec of a chunk that a task emits, and its bytes.

        Raises:
            TypeError: it cannot be sent.
            ValueError: it is larger than 64 KiB.
        """
        what = f"a chunk of task {name!r}"
        if self.serializer is not None:
            codec, data = CUSTOM, self.serialize(value, name)
        else:
            # An instance of a class is annotated by its reader.
            data, codec, _ = _encode_value(what, value, type(value) if survey((value,)) & OTHER else MISSING)
        if len(data) > _LARGEST_CHUNK:
            raise ValueError(f"{what} is {len(data):,} bytes, over the limit of {_LARGEST_CHUNK:,}: emit it in parts")
        return codec, data

    def decode_chunk(self, data: bytes, codec: str, hint: Any, label: str) -> Any:
        """A chunk from its bytes; `hint`: what it is converted to, or `MISSING`.

        Raises:
            TypeError: it does not fit.
        """
        if codec == CUSTOM:
            return self._deserialize(data)
        encoding = encoding_of(codec)
        return encoding.restore(encoding.decode(data), hint, label)

    def decode_result(
        self,
        data: bytes,
        codec: str,
        signature_of: Callable[[str], Signature | None],
        signature: Signature | None = None,
    ) -> Any:
        """A result from its bytes; without `signature`, `signature_of` finds that of the task that returned it.

        If that task is unknown, a typed result is plain data, as in JSON.

        Raises:
            TypeError: it does not fit the annotation.
            InvalidResult: it was not sent.
        """
        if not codec and signature is None:
            return from_json(data) if data else None
        codec = bare(codec)
        if codec == CUSTOM:
            return self._deserialize(data)
        if codec == NOT_SENT:
            raise _invalid_result("", data.decode(errors="replace"))
        if codec == CHUNK:
            return [self.decode_result(part, how, signature_of, signature) for how, part in unpack(codec, data)]
        codec, _, name = codec.partition(":")
        encoding = encoding_of(codec)
        value = encoding.decode(data) if data else None
        if signature is None:
            if not encoding.typed:
                return value
            signature = signature_of(name)
        if signature is None:
            return value
        name = name or signature.name
        try:
            return encoding.restore(value, signature.returns, f"the result of task {name!r}")
        except TypeError:
            if encoding.typed or signature.inner is None:
                raise
            return value

    def canonical(self, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """The same bytes for the same call in every process, whatever the order of keywords; as in ArdiQ 1.2."""
        call = {"f": name, "a": list(args), "k": dict(sorted(kwargs.items()))}
        return stable(call) if self.serializer is None else self.serialize(call, name)

    def serialize(self, value: Any, name: str) -> bytes:
        assert self.serializer is not None
        data = self.serializer(value)
        if not isinstance(data, bytes):
            raise TypeError(f"the serializer must return bytes, not {type(data).__name__} (task {name!r})")
        return data

    def _deserialize(self, data: bytes) -> Any:
        if self.deserializer is None:
            raise ValueError("written by a custom serializer, but this app has no deserializer")
        return self.deserializer(data)

    def decode_packed(self, data: bytes, codec: str) -> Any:
        """A value from its bytes, without converting it.

        Raises:
            ValueError: an unknown codec.
        """
        return self._deserialize(data) if codec == CUSTOM else encoding_of(codec).decode(data)

    def too_large(self, what: str, size: int) -> ValueError:
        """The error for `what`, a subject and its verb, which is over the limit."""
        return ValueError(
            f"{what} {size:,} bytes, over the limit of {self.limit:,} (payload_limit): "
            "store large data elsewhere and pass its address"
        )


def _encode_value(what: str, value: Any, hint: Any) -> tuple[bytes, str, bool]:
    """The bytes of one value, the codec, and whether its receiver converts it by the annotation."""
    try:
        found = survey((value,))
        if not found:
            return to_json(value), "", False
        encoding = choose([(what, value, hint)], found)
        return encoding.encode(value), encoding.codec, encoding.typed
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply, or contains itself") from None


def _is_plain_json(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether JSON would change nothing in a call."""
    try:
        return not survey(args) and not (kwargs and survey(kwargs.values()))
    except RecursionError:
        return False


def _fits(readers: Readers, args: bytes, kwargs: bytes) -> bool:
    """Whether the JSON of a call can be read by these."""
    try:
        if readers.args is not None:
            readers.args(args)
        if readers.kwargs is not None:
            readers.kwargs(kwargs)
    except msgspec.DecodeError:
        return False
    return True


def _labelled(
    name: str, signature: Signature | None, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[str, Any, Any]]:
    """For each argument its name in messages, the argument, and its annotation."""
    signature = signature and signature.annotated(args, kwargs)
    if signature is None:
        rows = [(f"argument {i} of task {name!r}", value, MISSING) for i, value in enumerate(args, 1)]
    else:
        rows = [
            (f"argument {label!r} of task {name!r}", value, hint)
            for (label, hint), value in zip(signature.positional(len(args)), args, strict=True)
        ]
    for key, value in kwargs.items():
        rows.append((f"argument {key!r} of task {name!r}", value, signature.hint(key) if signature else MISSING))
    return rows


def _invalid_result(name: str, why: object) -> TypeError:
    """An `InvalidResult`."""
    from ..errors import InvalidResult

    if isinstance(why, RecursionError):
        why = f"the result of task {name!r} is nested too deeply, or contains itself"
    elif isinstance(why, Exception) and f"task {name!r}" not in str(why):
        why = f"the result of task {name!r} cannot be sent: {why!r}"
    return InvalidResult(str(why))
