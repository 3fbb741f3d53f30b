"""The parts of `calls.py`: a call of one function, and the readers of its reply.

Records can be edited by hand, so an invalid value is read as an empty one.
"""

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

from .. import _core, errors
from .._values.encodings import from_json

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
Text: TypeAlias = str | bytes
Values: TypeAlias = Sequence[Any]
Read: TypeAlias = Callable[[Any], Any]
Make: TypeAlias = Callable[[Iterable[Any]], R]


class Call(NamedTuple, Generic[R_co]):
    """A call of one function, to be sent by `ask`, or by `ask` or `tell` of a channel. `repeat` allows sending it again
    when its reply was lost although the protocol does not call it idempotent.
    """

    function: str
    args: tuple[Text | int, ...]
    read: Callable[[Any], R_co]
    repeat: bool = False

    def decode(self, reply: Any) -> R_co:
        """The reply as the caller sees it.

        Raises:
            ArdiqError: it is not laid out as the protocol says.
        """
        try:
            return self.read(reply)
        except (LookupError, TypeError, ValueError):
            raise errors.ArdiqError(f"{self.function}: the reply is not laid out as the protocol says") from None


def ask(core: _core.Core, call: Call[R], *, repeat: bool = False, within_ms: int | None = None) -> R:
    """Call one function and block, with the GIL released, until it is answered; see `Core.call`."""
    return call.decode(core.call(call.function, call.args, repeat or call.repeat, within_ms))


class Ask(Protocol):
    """How a coroutine asks the server: by `ask` of a channel, or blocking within `at_once`."""

    def __call__(self, call: Call[R], /) -> Awaitable[R]: ...


def at_once(core: _core.Core, work: Callable[[Ask], Coroutine[Any, Any, R]]) -> R:
    """Run a coroutine that awaits nothing but what it asks the server; blocks this thread, without an event loop."""

    async def asked(call: Call[Any], /) -> Any:
        return ask(core, call)

    try:
        work(asked).send(None)
    except StopIteration as end:
        found: R = end.value
        return found
    raise RuntimeError("it awaits something else")


class Record(NamedTuple, Generic[R]):
    """Reads a named tuple: a value for each of its fields."""

    make: Make[R]
    readers: tuple[Read, ...]

    def read(self, values: Values) -> R:
        """One tuple; values at the end may be missing."""
        several(values)
        missing = [b""] * (len(self.readers) - len(values))
        return self.make([read(value) for read, value in zip(self.readers, (*values, *missing), strict=True)])

    def rows(self, values: Values) -> list[R]:
        """Tuples, one after the other."""
        several(values)
        width = len(self.readers)
        return [self.read(values[at : at + width]) for at in range(0, len(values), width)]

    def optional(self, values: Values) -> R | None:
        """A tuple, or None."""
        return self.read(values) if values else None


def page(
    make: Make[R], header: tuple[Read, ...], rest: Read | None = None, counted: Record[Any] | None = None
) -> Callable[[Values], R]:
    """Reads a reply that begins with one value for each part of the header, then, if `counted`, as many records as the
    last of these says; `rest` reads what follows.
    """

    def read(values: Values) -> R:
        several(values)
        at = len(header)
        fields = [read(value) for read, value in zip(header, values[:at], strict=True)]
        if counted is not None:
            first, at = at, at + fields[-1] * len(counted.readers)
            fields[-1] = counted.rows(values[first:at])
        return make(fields if rest is None else [*fields, rest(values[at:])])

    return read


def several(values: Values) -> Values:
    """The values, which a text is not, although it has a length and parts.

    Raises:
        TypeError: it is one.
    """
    if isinstance(values, bytes | str):
        raise TypeError("one value where several were expected")
    return values


def text(value: Any) -> str:
    """A text; invalid UTF-8 is replaced."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def texts(values: Values) -> list[str]:
    """Texts."""
    return [text(value) for value in several(values)]


def word(value: Any) -> Any:
    """One of the words that the protocol declares."""
    return text(value)


def answers(values: Values) -> list[Any]:
    """A text for each record of the call, or the error with which it was refused."""
    return [refusal(value) or text(value) for value in several(values)]


def table(read: Callable[[Any], R]) -> Callable[[Values], dict[str, R]]:
    """A dict from alternating names and values."""
    return lambda values: {text(values[at]): read(values[at + 1]) for at in range(0, len(several(values)), 2)}


def number(value: Any) -> int:
    """A number; 0 if it is missing or invalid."""
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return int(float(value))
    except (ValueError, OverflowError):
        return 0


def flag(value: Any) -> bool:
    """1 or 0."""
    return number(value) != 0


def raw(value: Any) -> bytes:
    """Bytes as they came."""
    return value if isinstance(value, bytes) else str(value).encode()


def json_object(value: Any) -> dict[str, Any]:
    """A JSON object."""
    found = _json(value)
    return found if isinstance(found, dict) else {}


def json_texts(value: Any) -> list[str]:
    """A JSON array of texts."""
    found = _json(value)
    return [str(each) for each in found] if isinstance(found, list) else []


def json_numbers(value: Any) -> list[int]:
    """A JSON array of numbers."""
    found = _json(value)
    return [each if isinstance(each, int) else 0 for each in found] if isinstance(found, list) else []


def refusal(answer: Any) -> Exception | None:
    """The error that one record of a batch was answered with, or None."""
    if isinstance(answer, Exception):
        return answer
    if not isinstance(answer, bytes) or not answer.startswith(b"ARDIQ_"):
        return None
    code, _, message = answer.decode(errors="replace").partition(" ")
    name = "".join(part.capitalize() for part in code.split("_")[1:])
    kind: type[Exception] = getattr(errors, name, errors.ArdiqError)
    return kind(message)


def _json(value: Any) -> Any:
    try:
        return from_json(value)
    except (TypeError, ValueError):
        return None
