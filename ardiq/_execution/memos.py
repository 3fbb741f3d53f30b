"""What running attempts know of the steps and waits of their tasks, and what they ask the server about them.

All of it is written as coroutines that await nothing but what their `Way` gives: on an event loop, or blocking.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, TypeAlias, TypeVar

from .._server import calls
from .._server.inbox import resolve
from .._server.replies import Ask, Call, R, at_once
from .._values import options as _options
from .._values.encodings import to_json
from .._values.kept import ENDED, SIGNAL, STEP, TIMEOUT, UNTIL, Hint, Kept, Memo, place_of
from .._values.signature import MISSING
from ..errors import ArdiqError, InvalidArguments, InvalidResult, LeaseLost, Suspend, is_away
from ..signals import Received, SignalOf
from .children import Children
from .endings import Claim

if TYPE_CHECKING:
    from .._client.queue import QueueContext

T = TypeVar("T")
InThread: TypeAlias = Callable[[Callable[..., Any], Any, Any], Awaitable[Any]]

SLEEP, WAIT, VERSION, CHILDREN = "sleep", "wait_for", "version", "children"

_LONGEST_NAME = 200
_LARGEST_STEP = 1 << 20
_LONGEST_MS = 365 * 86_400_000
_IN_PLACE_MS = 2_000
_ASK_AGAIN_S = 1.0


class Holder(Protocol):
    """Who runs attempts."""

    sleeps_in_place: bool
    """Whether short sleeps keep the attempt, instead of ending it."""

    def holder(self, token: int) -> tuple[str, int]:
        """Under which identity and lease token the server knows an attempt."""

    def holds(self, token: int) -> bool:
        """Whether the attempt is still to be settled."""


class Way(NamedTuple):
    """How a coroutine asks the server and passes time."""

    ask: Ask
    sleep: Callable[[float], Awaitable[Any]]
    is_blocking: bool


class Use(NamedTuple):
    """A step or a wait of this attempt.

    Attributes:
        name: of its memo.
        kind: `STEP`, `SLEEP`, `WAIT`, `VERSION` or `CHILDREN`.
        label: what it is for people.
    """

    name: str
    kind: str
    label: str


class Waits:
    """The attempts that use steps or waits, of those that run here.

    Args:
        in_thread: calls a function on a thread of the worker, on whose loop this is made; None: there is none.
    """

    def __init__(self, queue: "QueueContext", holder: Holder, in_thread: InThread | None = None) -> None:
        self.queue = queue
        self.holder = holder
        self._in_thread = in_thread
        self._loop = None if in_thread is None else asyncio.get_running_loop()
        self.kept = Kept(queue.name, queue.codec, queue.signer)
        # By token.
        self.open: dict[int, Memos] = {}

    def of(self, claim: Claim) -> "Memos":
        """The memos of an attempt."""
        return self.open.get(claim[1]) or self.open.setdefault(claim[1], Memos(self, claim))

    def end(self, token: int) -> None:
        """An attempt has returned a value, which does not count if it has begun to wait.

        Raises:
            Suspend: it has.
        """
        memos = self.open.pop(token, None)
        if memos is not None and memos.suspends:
            raise Suspend(memos.suspends)

    async def in_thread(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Call a function on a thread, of the worker if this is its loop."""
        if self._in_thread is None or asyncio.get_running_loop() is not self._loop:
            return await asyncio.to_thread(fn, *args, **kwargs)
        return await self._in_thread(fn, args, kwargs)

    async def on_loop(self, work: Callable[[Way], Coroutine[Any, Any, T]]) -> T:
        """Do it on the running event loop."""
        return await work(Way(self.queue.channel().ask, asyncio.sleep, False))

    def blocking(self, work: Callable[[Way], Coroutine[Any, Any, T]]) -> T:
        """Do it, blocking this thread."""
        return at_once(self.queue.server.core, lambda ask: work(Way(ask, _block, True)))


class Memos:
    """What one attempt did so far, in this attempt and those before, and what it waits for.

    Attributes:
        suspends: the name of the wait for which the attempt ends; empty: none.
    """

    def __init__(self, waits: Waits, claim: Claim) -> None:
        self._waits = waits
        self._task_id, self._token, self._task = claim[:3]
        self._whose = f"task {self._task!r} (id {self._task_id})"
        # By name, those of earlier attempts; None: too large to have been sent along.
        self._known: dict[str, Memo | None] | None = None
        self._used: dict[str, tuple[str, int]] = {}
        # Of all memos that this attempt has come to.
        self._names: set[str] = set()
        self._pending: Use | None = None
        self._busy = 0
        self._idle: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self.suspends = ""

    def use(self, name: str, kind: str) -> Use:
        """A step or a wait that begins now; the second one of a name gets a number.

        Raises:
            TypeError: the name is no str.
            ValueError: the name is invalid, or used for something else.
            Suspend: the attempt has begun to wait.
        """
        if self.suspends:
            raise Suspend(self.suspends)
        what, count = self._used.get(name, (kind, 0))
        if what != kind:
            raise ValueError(f"{name!r} of task {self._task!r} is used for two things, {what} and {kind}: rename one")
        full = name if count == 0 else f"{name}#{count + 1}"
        if len(full.encode()) > _LONGEST_NAME:
            raise ValueError(f"the name of a {kind} must have at most {_LONGEST_NAME} bytes: {full[:50]!r}…")
        self._used[name] = kind, count + 1
        self._names.add(full)
        return Use(full, kind, f"{kind} {full.removeprefix(f'{CHILDREN}:')!r} of {self._whose}")

    def key_of(self, use: Use) -> str:
        """The same in every attempt of the task, and of no other step."""
        return f"{self._task_id}/{use.name}"

    @contextmanager
    def running(self) -> Iterator[None]:
        """While a step runs: a wait beside it ends the attempt only when it has."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                while self._idle:
                    loop, idle = self._idle.pop()
                    loop.call_soon_threadsafe(resolve, idle, None)

    async def recall(self, way: Way, use: Use, hint: Callable[[], Hint]) -> Any:
        """What a step returned in an earlier attempt; `MISSING` if there was none.

        Raises:
            ValueError: the name is that of a wait.
            InvalidResult: it does not fit what the step returns now.
        """
        memo = await self._memo(way, use)
        if memo is None:
            return MISSING
        if memo.kind != STEP:
            raise ValueError(f"{use.label}: an earlier attempt waited under this name: rename the step")
        return self._result(use, memo.codec, memo.data, hint())

    async def keep(self, way: Way, use: Use, value: Any, hint: Callable[[], Hint]) -> Any:
        """Store what a step returned, and return it.

        Raises:
            InvalidResult: it cannot be stored.
            LeaseLost: the attempt is no longer the task's.
        """
        label, wanted = f"the result of {use.label}", hint()
        try:
            codec, data = self._waits.kept.write(self._task_id, _place(use), label, value, wanted)
        except Exception as error:
            raise InvalidResult(str(error) if label in str(error) else f"{label} cannot be kept: {error!r}") from error
        if len(data) > _LARGEST_STEP:
            raise InvalidResult(
                f"{label} has {len(data):,} bytes, over the limit of {_LARGEST_STEP:,}: store large data elsewhere and "
                "return its address"
            )
        identity, token = self._waits.holder.holder(self._token)
        reply = await self._ask(
            way,
            calls.checkpoint(
                worker=identity, id=self._task_id, token=str(token), name=use.name, codec=codec, value=data
            ),
        )
        if reply.answer == "stored":
            return value
        self._refuse_stale(reply.answer, use)
        return self._result(use, reply.codec, reply.value, wanted)

    async def version(self, way: Way, use: Use, number: int) -> int:
        """The number that was stored at its first use; 1 where an earlier attempt was past this place already."""
        found = await self.recall(way, use, lambda: Hint.of_type(int))
        if found is MISSING:
            was_past = not self._names.issuperset(self._known or ())
            found = await self.keep(way, use, 1 if was_past else number, lambda: Hint.of_type(int))
        return int(found)

    async def wait(self, way: Way, use: Use, signals: Sequence[SignalOf[Any]], wait_ms: int) -> Received[Any] | None:
        """The first signal that comes; None when the time is up. `wait_ms` 0: what is there; -1: without a limit.

        Raises:
            Suspend: none is there yet.
            RuntimeError: the attempt waits already.
            InvalidArguments: the value does not fit the signal.
        """
        with self._waiting(use):
            memo = await self._memo_of_wait(way, use)
            if memo is None or memo.kind == UNTIL:
                memo = await self._decided(way, use, signals, wait_ms)
            return None if memo.kind == TIMEOUT else self._received(use, memo, signals)

    def family(self, name: str, prepared: Iterable[Any], tolerate: float) -> tuple[Use, Children]:
        """Children that the task waits for now.

        Raises:
            TypeError, ValueError: something is wrong with them, or this attempt has used the name already.
        """
        label = f"children {name!r} of {self._whose}"
        children = Children(self._waits.queue, self._task_id, label, name, prepared, tolerate)
        use = self.use(f"{CHILDREN}:{name}", CHILDREN)
        if "#" in use.name:
            raise ValueError(
                f"{use.label}: this attempt has used the name already, and their results are found by it: give each a "
                "name of its own"
            )
        return use, children

    async def wait_for_children(self, way: Way, use: Use, children: Children) -> list[Any]:
        """Their results.

        Raises:
            Suspend: they have not ended.
            RuntimeError: the attempt waits already.
            ChildrenFailed: some did not complete.
        """

        def ask(call: Call[R], /) -> Awaitable[R]:
            return self._ask(way, call)

        with self._waiting(use):
            memo = await self._memo_of_wait(way, use)
            if memo is not None and memo.kind == ENDED and (found := await children.read(ask)) is not None:
                return found
            identity, token = self._waits.holder.holder(self._token)
            parent = {"worker": identity, "id": self._task_id, "token": str(token)}
            answer = await children.begin(ask, parent, way.is_blocking)
            self._refuse_stale(answer, use)
            found = await children.read(ask) if answer == "kept" else None
            return await self._suspend(way, use) if found is None else found

    @contextmanager
    def _waiting(self, use: Use) -> Iterator[None]:
        if self._pending is not None:
            raise RuntimeError(
                f"{use.label}: this attempt waits already, for {self._pending.name!r}; a task waits for one thing at a "
                "time: for the first of several signals use wait_for(a, b), for several calls one children(…)"
            )
        self._pending = use
        try:
            yield
        finally:
            self._pending = None

    async def _memo_of_wait(self, way: Way, use: Use) -> Memo | None:
        memo = await self._memo(way, use)
        if memo is not None and memo.kind == STEP:
            raise ValueError(f"{use.label}: an earlier attempt used this name for a step: rename the {use.kind}")
        return memo

    async def _suspend(self, way: Way, use: Use) -> NoReturn:
        self.suspends = use.name
        if not way.is_blocking:
            await self._others_end()
        raise Suspend(use.name)

    async def _decided(self, way: Way, use: Use, signals: Sequence[SignalOf[Any]], wait_ms: int) -> Memo:
        names = to_json([signal.name for signal in signals])
        while True:
            identity, token = self._waits.holder.holder(self._token)
            reply = await self._ask(
                way,
                calls.wait(
                    worker=identity,
                    id=self._task_id,
                    token=str(token),
                    name=use.name,
                    signals=names,
                    wait_ms=wait_ms,
                ),
            )
            if reply.answer == SIGNAL:
                return Memo(SIGNAL, reply.signal, reply.codec, reply.value)
            if reply.answer == TIMEOUT:
                return Memo(TIMEOUT, "", "", b"")
            self._refuse_stale(reply.answer, use)
            if signals or not self._waits.holder.sleeps_in_place or reply.wait_ms > _IN_PLACE_MS:
                await self._suspend(way, use)
            await way.sleep(reply.wait_ms / 1000)

    async def _others_end(self) -> None:
        """Wait until no step runs: it would be lost with the attempt."""
        while self._busy:
            loop = asyncio.get_running_loop()
            idle: asyncio.Future[None] = loop.create_future()
            self._idle.append((loop, idle))
            await idle

    async def _ask(self, way: Way, call: Call[R]) -> R:
        """The reply of the server, however long it is away, as long as the attempt counts."""
        while True:
            try:
                return await way.ask(call)
            except ArdiqError as error:
                if not is_away(error):
                    raise
            await way.sleep(_ASK_AGAIN_S)
            self._check_runs()

    def _check_runs(self) -> None:
        if not self._waits.holder.holds(self._token):
            self._waits.open.pop(self._token, None)
            raise LeaseLost(f"the attempt of task {self._task!r} (id {self._task_id}) has ended")

    async def _memo(self, way: Way, use: Use) -> Memo | None:
        if self._known is None:
            rows = await self._ask(way, calls.steps(id=self._task_id, name=""))
            self._known = {row.name: Memo.read(row.memo) if row.is_here else None for row in rows}
        self._check_runs()
        if use.name in self._known and self._known[use.name] is None:
            rows = await self._ask(way, calls.steps(id=self._task_id, name=use.name))
            self._known[use.name] = next((Memo.read(row.memo) for row in rows), None)
        return self._known.get(use.name)

    def _result(self, use: Use, codec: str, data: bytes, hint: Hint) -> Any:
        label = f"the result of {use.label}"
        try:
            return self._waits.kept.read(self._task_id, _place(use), label, codec, data, hint)
        except (TypeError, ValueError) as error:
            why = f"{error}: an earlier attempt stored it; rename the step, or let its annotation take such values"
            raise InvalidResult(why) from None

    def _received(self, use: Use, memo: Memo, signals: Sequence[SignalOf[Any]]) -> Received[Any]:
        signal = next((each for each in signals if each.name == memo.signal), None)
        if signal is None:
            raise ValueError(f"{use.label}: the signal {memo.signal!r} ended it in an earlier attempt: rename the wait")
        label = f"signal {signal.name!r}, for {use.label},"
        try:
            value = self._waits.kept.read(
                self._task_id, place_of(signal.name), label, memo.codec, memo.data, Hint.of_type(signal.type)
            )
        except (TypeError, ValueError) as error:
            raise InvalidArguments(str(error)) from None
        return Received(signal, value)

    def _refuse_stale(self, answer: str, use: Use) -> None:
        if answer == "stale":
            raise LeaseLost(f"{use.label}: another attempt has the task now, so nothing was stored")


def step_name(name: Any) -> str:
    """The name of a step or a sleep, checked.

    Raises:
        TypeError: it is no str.
        ValueError: it is invalid.
    """
    _options.text("the name of a step", name)
    if "#" in name:
        raise ValueError(f"the name of a step must not contain '#', which counts uses of a name: {name!r}")
    return str(name)


def wait_ms_of(name: str, value: Any) -> int:
    """How long a wait takes at most, in milliseconds.

    Raises:
        TypeError: it is neither a timedelta nor a number.
        ValueError: it is negative, or more than a year.
    """
    found_ms = _options.milliseconds(name, value)
    if found_ms > _LONGEST_MS:
        raise ValueError(f"{name} must be at most a year, not {value!r}")
    return found_ms


def _place(use: Use) -> str:
    return f"step:{use.name}"


async def _block(seconds: float) -> None:
    time.sleep(seconds)
