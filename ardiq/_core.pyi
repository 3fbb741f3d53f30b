"""The boundary to the compiled core. Private: the public names are in `ardiq`.

Lua decides, Rust carries, Python speaks: nothing here knows a task's state.
"""

from collections.abc import Sequence
from typing import Any, final

__all__ = [
    "PROTOCOL",
    "PROTOCOL_VERSION",
    "VERSION",
    "Channel",
    "Core",
    "Health",
    "Inbox",
    "Pool",
    "StallDetector",
    "Worker",
    "commands",
    "composed",
    "library",
    "migration",
    "script",
    "trim_memory",
]

PROTOCOL: str
"""The text of `lua/protocol.json` of this build."""

PROTOCOL_VERSION: int
"""Its version, which is the library's."""

VERSION: str
"""The version of this build."""

def library() -> tuple[str, str]:
    """The Lua library of this build, as released or else as `lua/` makes it: payload and SHA1."""

def composed() -> str:
    """The library as `lua/` makes it, whatever was released."""

def script(function: str) -> tuple[str, str]:
    """One function as an EVAL script, for servers without Functions: source and SHA1."""

def migration(name: str) -> str:
    """A data step of `lua/migrations` as an EVAL script, whose key is the base of a queue."""

def trim_memory() -> None:
    """Give memory that was freed back to the system, where the C library keeps it until told."""

def commands(function: str) -> list[str]:
    """The commands of the server that one function may call."""

@final
class Core:
    """One queue of one server; thread-safe; connects when first used.

    Those of one process with the same URL, prefix and options share connections: each event loop has one to the server,
    or to each node of a cluster, and blocking calls have another; with a worker there is an I/O thread, and one
    connection for all.
    """

    def __new__(
        cls,
        url: str,
        base: str,
        *,
        connect_timeout_ms: int = 2000,
        broker_timeout_ms: int = 5000,
        response_timeout_ms: int = 10000,
        replicated: bool = False,
    ) -> Core:
        """`replicated`: what the protocol calls durable counts as done when a replica has it."""

    def call(
        self, function: str, args: Sequence[str | bytes | int], repeat: bool = False, within_ms: int | None = None
    ) -> Any:
        """Call one function and block, with the GIL released, until it is answered.

        It is sent again when the reply was lost if the protocol calls it idempotent; `repeat` allows it for another,
        see `Channel.submit`. `within_ms`: where the caller has less time than a call may take.
        """

    def call_many(self, function: str, records: Sequence[str | bytes], repeat: bool = True) -> list[Any]:
        """`Channel.submit_many`, blocking, with the GIL released, until all records are answered."""

    def command(self, args: Sequence[str | bytes | int]) -> Any:
        """Send one raw command and block, with the GIL released, until it is answered."""

    def health(self, host: str, port: int) -> Health:
        """Answer probes and metrics there over HTTP; port 0: the system chooses one.

        Raises `OSError` where it cannot listen.
        """

    @staticmethod
    def metrics(queues: Sequence[tuple[str, Core]]) -> str:
        """The metrics of queues, each with its name, as a worker's `/metrics` has them, without those of workers.

        Blocks, with the GIL released, at most two seconds a queue whose server does not answer.
        """

    def channel(self, inbox: Inbox, number: int = 0) -> Channel:
        """A new channel for the event loop of that inbox, where its news have this number."""

    def register(self) -> None:
        """Make the queue known at the server, in the list of queues of its prefix, without waiting for it."""

    @property
    def url(self) -> str:
        """The server's URL, without its password."""

    def server(self) -> tuple[str, str]:
        """What the server is and where, such as `("Redis 7.0.15", "localhost:6379")`."""

    def primaries(self) -> list[tuple[str, bool, Core]]:
        """The primaries of a cluster, that of the queue first; none where there is no cluster.

        Where each is, whether it holds the queue, and a core for it alone, to be closed.
        """

    def check_eviction(self) -> None:
        """Refuse, with `LibraryError`, a server whose eviction policy could throw away tasks."""

    def migrate_status(self) -> dict[str, Any]: ...
    def migrate_apply(self, *, to: int | None = None, force: bool = False) -> list[str]: ...
    def migrate_prune(self, *, force: bool = False) -> list[str]: ...
    def queues(self) -> list[tuple[str, str]]:
        """Every queue of the server, as prefix and name; `Forbidden` for a user that may not `SCAN`."""

    def close(self, timeout_ms: int = 1000) -> None:
        """Let go of the connections: what is under way ends.

        The last one of those that share them ends the I/O thread, if there is one, waiting at most that long for it.
        """

    def after_fork(self) -> None:
        """In the child of a fork: forget everything, connect anew when used."""

@final
class Inbox:
    """What happened, for one event loop.

    Other threads append events, *then* signal the descriptor; Python's `turn` or `take` clears the
    descriptor, *then* takes the events. Events are tuples whose first item is their kind:

    - `("reply", ticket, value)`: the answer to `call`, `submit` or `submit_many` of any channel
    - `("error", ticket, exception)`: the same, refused or failed
    - `("other", number, news)`: what is no answer, of the channel of that number; see `Channel`
    """

    def __new__(cls) -> Inbox: ...
    def fileno(self) -> int:
        """The descriptor to watch for reading: what happens on other threads makes it readable."""

    def drive(self) -> None:
        """From now on the loop does the I/O of its channels itself, by `turn`."""

    def turn(
        self, readable: int | None = None, writable: int | None = None
    ) -> tuple[list[tuple[Any, ...]], float | None]:
        """Do the I/O that is ready, without blocking: all events, and in how many seconds the next turn is due.

        `readable` and `writable`: the descriptor that the loop found to be so. Events come first that say what to do
        about one: `("watch", descriptor, what)`, where `what` is

        - `"read"`: call `turn` whenever it is readable
        - `"pause"`: not any more
        - `"write"`: call `turn` when it is writable, once
        - `"close"`: stop watching it, then call `release` with it
        """

    def release(self, descriptor: int) -> None:
        """Close a descriptor that is not watched any more."""

    def take(self) -> list[tuple[Any, ...]]:
        """Clear the descriptor and take all events."""

    def wait(self, timeout_ms: int) -> bool:
        """Block, with the GIL released, until there are events; whether there are."""

    def wake(self) -> None:
        """Wake whoever waits."""

@final
class Channel:
    """One queue on one event loop, whose inbox has what comes back. News are tuples whose first item is their kind:

    - `("message", fields)`: a message from the mailbox, a list of bytes
    - `("listening", mailbox)`: the mailbox's full name, after every (re)connect; whoever
      waits must ask again under this name
    - `("joined", identity)`: the worker has entered the queue, at its start and after each lost lease
    - `("tasks",)`: `Worker.take` has something. Sent once; whoever took less than there
      was takes again when slots are free
    - `("abort", token)`: the task of that token is asked to stop; repeated until it is settled
    - `("outbox",)`: there is something to carry to other queues
    - `("settled", id, token, what, refused)`: the server's answer to an outcome: `what` the attempt
      became, which may be another one than was asked for, or why it was refused. One that is
      `complete` is answered only where it was refused, and none is after its lease was lost
    - `("stuck", id, reason)`: a task, or a whole list where `id` is empty, could not be moved
    - `("lost", message, up_to)`: the lease was lost: no task whose token is `up_to` or less
      can be committed any more (each must be settled all the same, which frees its slot);
      the worker joins anew by itself
    - `("log", level, message)`: a line for the log, `level` as in `logging`
    - `("idle",)`: burst mode: nothing is ready and nothing is held
    - `("failed", exception)`: the worker cannot go on (another library, a bad option)
    - `("worker", "stopped")`: everything is settled and the worker has left
    """

    def call(self, ticket: int, function: str, args: Sequence[str | bytes | int], repeat: bool = False) -> bool:
        """Call one function; answered by an event with this ticket. Whether the loop has to take a `turn` for it.

        It is sent again when the reply was lost if the protocol calls it idempotent; `repeat` allows it for another.
        """

    def submit(
        self, ticket: int, function: str, record: tuple[str | bytes, ...] | list[str | bytes], repeat: bool = True
    ) -> None:
        """Add one tail record of a batched function; held until `flush`.

        `repeat` allows sending it again when the reply was lost: right only if the
        function's answer to a repeated record is harmless. Otherwise the error carries
        `maybe_enqueued`.
        """

    def flush(self) -> float | None:
        """Send what was submitted, in as few calls as the limits allow; in how many seconds a turn is due, if one is.

        Each record is answered by an event of its own: one value of the flat reply.
        """

    def submit_many(
        self,
        ticket: int,
        function: str,
        records: Sequence[str | bytes],
        repeat: bool = True,
    ) -> bool:
        """Send many tail records, given as one flat list; answered by one event.

        The reply is a list with one value a record. The exception of an error has
        `accepted`: such a list with `None` for each record that was not answered,
        and False for each that was certainly not carried out.
        """

    def register(self) -> bool:
        """Make the queue known at the server, without waiting for it."""

    def listen(self, mailbox: str) -> bool:
        """Read the mailbox of that name (to which a generation is appended) for ever."""

    def worker(self, config: dict[str, Any]) -> Worker:
        """A worker whose events arrive here.

        `config`: `label` str, `info` str (JSON), `lanes` list of (name, weight or None, limit or None), highest first,
        `concurrency` int, `prefetch` int or None (adaptive), `lease_ms` int,
        `poll_block_ms` int, `result_ttl_ms` int, `max_lost` int, `burst` bool,
        `thread_tasks` list of str: names whose tasks go to `take_thread`,
        `batch_tasks` list of str: names whose batches are one claim; of others each task is one,
        `pool_share` (pool, number of the share) or None: where several queues share the slots,
        `health` (who answers for it, queue, names of tasks) or None, `stall_detector` of its event loop or None.
        """

    def detect_stalls(self, after_ms: int, most_ms: int | None = None) -> StallDetector:
        """Look whether the loop that takes the events turns: when it has not for `after_ms`, it is stalled.

        After `most_ms` of that the process ends at once, with exit code 4.
        """

    def close(self) -> None:
        """Drop what waits, stop listening."""

@final
class Health:
    """Probes and metrics over HTTP for as long as it lives, from the I/O thread: also while Python is stuck."""

    @property
    def address(self) -> str:
        """Where it listens, `host:port`."""

    def close(self) -> None:
        """Listen no more."""

    def after_fork(self) -> None:
        """In the child of a fork, once: leave the port to the parent."""

@final
class StallDetector:
    """Looks whether an event loop turns, for as long as it lives."""

    def wait(self, timeout_ms: int) -> float | None:
        """Block, with the GIL released, until a stall begins; its seconds so far.

        None when the time is over or it has ended.
        """

    @property
    def ended(self) -> bool:
        """Whether it looks no more."""

    def close(self) -> None:
        """Look no more, and wake who waits."""

@final
class Pool:
    """The slots that the queues of one process share: each is sure of its share, and one at least."""

    def __new__(cls, concurrency: int, shares: list[int]) -> Pool: ...
    @property
    def guaranteed(self) -> list[int]:
        """How many slots each queue is guaranteed; what one does not need goes to the others."""

@final
class Worker:
    """The I/O loop of one worker process: join, step, heartbeat, leave, off the GIL."""

    @property
    def ended(self) -> bool:
        """Whether it has left, failed or was abandoned."""

    def start(self) -> None: ...
    def take(self, limit: int) -> list[tuple[str, int, str, bytes, bytes, str, bytes, str, int, int]]:
        """Take tasks to start now: never more than there are free slots.

        Each is `(id, token, name, args, kwargs, codec, headers, lane, tries,
        enqueued_at)`; `enqueued_at` in milliseconds of the server's clock. The first of a batch (see
        `batch_tasks`) has an eleventh field, the tuple of the others; all tokens are to be settled. A `token` comes
        once in a worker's life and is for its own use: the server has another one, which
        it may give out again when it lost its data (see `holder`).
        """

    def take_thread(self, timeout_ms: int) -> tuple[str, int, str, bytes, bytes, str, bytes, str, int, int] | None:
        """Block, with the GIL released, for one task of `thread_tasks`.

        None when the time is over or the worker has ended (see `ended`).
        """

    def settle(self, outcomes: Sequence[tuple[str, int, str, int, bytes, bytes]]) -> None:
        """Hand in outcomes and free their slots.

        Each is `(id, token, outcome, run_ms, value, details)`; `outcome` is `complete`,
        `failed`, `retry`, `snooze`, `aborted` or `release`, `details` a JSON object or empty.

        Raises:
            TypeError: one is something else. The others were handed in.
        """

    def holder(self, token: int) -> tuple[str, int]:
        """Under which identity and lease token the server knows the attempt of that token.

        After a lost lease it knows it under none: 0 is the token of no attempt.
        """

    def occupy(self, takes: bool) -> None:
        """A slot is taken by who is told of an attempt that has ended, or given back."""

    def thread_runs_on(self, token: int, runs_on: bool) -> None:
        """A thread runs on although the task of that token is settled; or it has ended.

        It keeps the slot in between. Both are said once, in either order.
        """

    def stop(self) -> None:
        """Claim no more, hand back what was not started, leave when all is settled."""

    def abandon(self) -> None:
        """End at once: no more commits, no leaving; the lease will run out."""
