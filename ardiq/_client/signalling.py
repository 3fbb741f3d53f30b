"""Signals, from who gives them: what running tasks wait for, by id or by a token."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any, TypeVar, overload

from .._server import calls
from .._server.replies import Call, ask
from .._values import options as _options
from .._values.encodings import from_json, to_json
from .._values.ids import new_id
from .._values.kept import Hint, Kept, place_of
from .._values.signature import MISSING
from .._values.signing import Signer
from ..errors import BadSignature
from ..signals import Signal, signal_name
from .facade import Facade

if TYPE_CHECKING:
    from .queue import QueueContext

T = TypeVar("T")

_LARGEST = 64 * 1024


class Signalling(Facade):
    """Signals to running tasks; a part of `Ardiq`."""

    @overload
    async def signal(self, task_id: str, signal: Signal[T], value: T) -> None: ...
    @overload
    async def signal(self, task_id: str, signal: str, value: Any) -> None: ...
    async def signal(self, task_id: str, signal: Signal[Any] | str, value: Any) -> None:
        """Give a task a signal. If it waits for it, it goes on; else the signal is kept until it does, and goes with
        the task's end.

        Args:
            task_id: the task; also one that has not begun, as a node of a workflow.
            signal: which one, or its name.
            value: what the task's `wait_for` returns: of at most 64 KiB.

        Raises:
            LookupError: the task has ended, or is unknown.
            TypeError: the value does not fit the signal, or cannot be sent.
            ValueError: it is too large, or the name is invalid.
            BadArgument: the task has a thousand signals that it did not take.

        Example:
            ```python
            await app.signal(job.id, approval, True)
            ```
        """
        call = _call(self.context, task_id, signal, value, new_id())
        _check(task_id, await self.context.channel().ask(call))

    @overload
    def signal_sync(self, task_id: str, signal: Signal[T], value: T) -> None: ...
    @overload
    def signal_sync(self, task_id: str, signal: str, value: Any) -> None: ...
    def signal_sync(self, task_id: str, signal: Signal[Any] | str, value: Any) -> None:
        """`signal` for code without an event loop; blocks this thread until the server has answered."""
        call = _call(self.context, task_id, signal, value, new_id())
        _check(task_id, ask(self.context.server.core, call))

    def token(self, task_id: str, signal: Signal[Any] | str) -> str:
        """A text for a link in a mail or a webhook: whoever brings it back may give the task this signal, once. It
        does not say with which value: that is up to the code that redeems it.

        Args:
            task_id: the task.
            signal: which signal, or its name.

        Raises:
            RuntimeError: the app has no `signing_key`.
            ValueError: the name is invalid.

        Example:
            ```python
            link = f"https://example.com/approve?token={app.token(job.id, approval)}"
            ```
        """
        text = urlsafe_b64encode(to_json([task_id, _name(signal), new_id()])).rstrip(b"=")
        return f"{text.decode()}.{_signer(self.context).sign_token(self.context.name, text)}"

    async def redeem(self, token: str, value: Any) -> None:
        """Give the signal that a token of `token` is for. The second time nothing happens.

        Args:
            token: the token.
            value: of the signal, as in `signal`.

        Raises:
            BadSignature: this app, on this queue, has not made it.
            RuntimeError: the app has no `signing_key`.
            LookupError, TypeError, ValueError, BadArgument: as in `signal`.
        """
        task_id, name, nonce = self._read_token(token)
        _check(task_id, await self.context.channel().ask(_call(self.context, task_id, name, value, nonce)))

    def redeem_sync(self, token: str, value: Any) -> None:
        """`redeem` for code without an event loop; blocks this thread until the server has answered."""
        task_id, name, nonce = self._read_token(token)
        _check(task_id, ask(self.context.server.core, _call(self.context, task_id, name, value, nonce)))

    def _read_token(self, token: str) -> list[str]:
        signer = _signer(self.context)
        text, _, signature = _options.text("token", token).encode().rpartition(b".")
        if not signer.is_token(self.context.name, text, signature):
            raise BadSignature(f"this token was not made by this app for queue {self.context.name!r}, or was changed")
        parts: list[str] = from_json(urlsafe_b64decode(text + b"=" * (-len(text) % 4)))
        return parts


def _call(queue: "QueueContext", task_id: str, signal: Signal[Any] | str, value: Any, nonce: str) -> "Call[Any]":
    _options.text("task_id", task_id)
    name = _name(signal)
    hint = Hint.of_type(signal.type) if isinstance(signal, Signal) else Hint(MISSING, False)
    label, kept = f"the value of signal {name!r}", Kept(queue.name, queue.codec, queue.signer)
    codec, data = kept.write(task_id, place_of(name), label, value, hint)
    if len(data) > _LARGEST:
        raise ValueError(
            f"{label} has {len(data):,} bytes, over the limit of {_LARGEST:,}: store large data elsewhere and send its "
            "address"
        )
    return calls.signal(id=task_id, name=name, codec=codec, value=data, nonce=nonce)


def _check(task_id: str, answer: str) -> None:
    if answer == "finished":
        raise LookupError(f"task {task_id!r} has ended, so it takes no signal any more")
    if answer == "not_found":
        raise LookupError(f"there is no task {task_id!r}: it was never enqueued, or is no longer kept")


def _name(signal: Signal[Any] | str) -> str:
    return signal.name if isinstance(signal, Signal) else signal_name(signal)


def _signer(queue: "QueueContext") -> Signer:
    if queue.signer is None:
        raise RuntimeError("tokens need a key: give the app a signing_key")
    return queue.signer
