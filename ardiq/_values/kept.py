"""Values that are kept for a running task: results of its steps, and signals. Signed, where the app has a key."""

from collections.abc import Callable
from typing import Any, NamedTuple

from . import conversion as _conversion
from .codec import CUSTOM, Codec
from .encodings import choose, encoding_of, from_json, survey, to_json
from .signature import MISSING, Signature
from .signing import Signer, bare

STEP, SIGNAL, TIMEOUT, UNTIL, ENDED = "step", "signal", "timeout", "until", "ended"
"""The kinds of memos."""


class Memo(NamedTuple):
    """What the server keeps of a step or a wait.

    Attributes:
        kind: `STEP`, `SIGNAL` (one came), `TIMEOUT` (none came, or the time to sleep is over), `ENDED` (of children) or
            `UNTIL` (undecided).
        signal: which one came.
        codec: of the value; of `UNTIL` the signals, as a JSON array, or nothing for a sleep and for children.
        data: the value of a step or signal; of children what they ended as; of `UNTIL` the deadline, in ms since the
            epoch, or nothing.
    """

    kind: str
    signal: str
    codec: str
    data: bytes

    @classmethod
    def read(cls, text: bytes) -> "Memo":
        """A memo from its text."""
        head, codec, data = (*text.split(b" ", 2), b"", b"")[:3]
        kind, _, signal = head.decode(errors="replace").partition(":")
        return cls(kind, signal, codec.decode(errors="replace"), data)

    @property
    def signals(self) -> list[str]:
        """The signals that an undecided wait is for."""
        found = from_json(self.codec.encode()) if self.kind == UNTIL and self.codec else []
        return [str(each) for each in found]

    def shown(self, codec: Codec) -> Any:
        """The value of a step or signal as plain data, for people; its signature is not checked.

        Raises:
            ValueError: it cannot be read.
        """
        return codec.decode_packed(self.data, bare(self.codec))


class Hint(NamedTuple):
    """What a value is converted to; `refuses`: one that does not fit is an error, and else stays as it is."""

    type: Any
    refuses: bool

    @classmethod
    def of_type(cls, kind: Any) -> "Hint":
        """Of a type that somebody named."""
        hint = _conversion.convertible(kind)
        return cls(MISSING if hint is None else hint, True)

    @classmethod
    def of_result(cls, name: str, fn: Callable[..., Any], checks_types: bool) -> "Hint":
        """Of what a function returns."""
        signature = Signature(name, fn, checks_types)
        return cls(signature.returns, signature.inner is None)


class Kept:
    """How the values of one queue are written and read.

    In its methods `place` is what names the value for a signature, beside the task's id, and `label` what names it for
    people.
    """

    def __init__(self, queue: str, codec: Codec, signer: Signer | None) -> None:
        self._queue = queue
        self._codec = codec
        self._signer = signer

    def write(self, task_id: str, place: str, label: str, value: Any, hint: Hint) -> tuple[str, bytes]:
        """The codec of a value, and its bytes.

        Raises:
            TypeError: it cannot be sent, or does not fit its annotation.
        """
        codec, data = self._encoded(label, value, hint)
        self._converted(label, codec, data, hint)
        if self._signer is None:
            return codec, data
        return self._signer.sign_value(self._queue, task_id, place, codec, data), data

    def read(self, task_id: str, place: str, label: str, codec: str, data: bytes, hint: Hint) -> Any:
        """A value, converted to its annotation.

        Raises:
            BadSignature: it was not signed with a key of this app.
            TypeError: it does not fit.
            ValueError: it cannot be read.
        """
        if self._signer is None:
            codec = bare(codec)
        else:
            codec = self._signer.check_value(self._queue, task_id, place, codec, data, label)
        return self._converted(label, codec, data, hint)

    def _converted(self, label: str, codec: str, data: bytes, hint: Hint) -> Any:
        value = self._codec.decode_packed(data, codec)
        if codec == CUSTOM:
            return value
        encoding = encoding_of(codec)
        try:
            return encoding.restore(value, hint.type, label)
        except TypeError:
            if encoding.typed or hint.refuses:
                raise
            return value

    def _encoded(self, label: str, value: Any, hint: Hint) -> tuple[str, bytes]:
        if self._codec.is_custom:
            return CUSTOM, self._codec.serialize(value, label)
        try:
            found = survey((value,))
            if not found:
                return "", to_json(value)
            encoding = choose([(label, value, hint.type)], found)
            return encoding.codec, encoding.encode(value)
        except RecursionError:
            raise TypeError(f"{label} is nested too deeply, or contains itself") from None


def place_of(signal: str) -> str:
    """What names a signal for its signature."""
    return f"signal:{signal}"
