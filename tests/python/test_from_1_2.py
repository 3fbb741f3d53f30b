"""`ardiq migrate --from-1.2`: what ArdiQ 1.2 left in Redis is moved, each task once, and nothing of it is lost."""

import json
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from helpers import drain, field, is_sound, result_of

from ardiq import Ardiq, Job, current_task
from ardiq._client.from_1_2 import Old
from ardiq.cli import main

pack = msgspec.msgpack.encode
HOUR_MS = 3_600_000


class Forerunner:
    """Writes what ArdiQ 1.2.0 writes, command for command as MONITOR shows them."""

    def __init__(self, app: Ardiq, dumps: Callable[[Any], bytes] = pack, queue: str | None = None) -> None:
        self._core, self._base, self._dumps = app.context.server.core, f"ardiq:{queue or app.queue_name}:", dumps

    def command(self, name: str, key: str, *words: Any) -> Any:
        return self._core.command([name, self._base + key, *words])

    def _data(self, task_id: str, name: str, args: Any, kwargs: Any, expire_ms: int, headers: Any) -> None:
        call = {"f": name, "a": list(args), "k": kwargs, "t": 1_700_000_000_000} | ({"h": headers} if headers else {})
        words = ["PX", expire_ms] if expire_ms else []
        self.command("SET", f"task:data:{task_id}", self._dumps(call), "NX", *words)

    def enqueue(
        self,
        task_id: str,
        name: str,
        *args: Any,
        lane: str = "default",
        due_at: int = 0,
        expire_ms: int = 0,
        tries: int = 0,
        headers: Any = None,
        **kwargs: Any,
    ) -> None:
        if not due_at and not self.command("EXISTS", f"queues:{lane}"):
            self._core.command(["XGROUP", "CREATE", f"{self._base}queues:{lane}", "workers", "0", "MKSTREAM"])
        self._data(task_id, name, args, kwargs, expire_ms, headers)
        if tries:
            self.command("SET", f"task:retry:{task_id}", tries)
        if due_at:
            self.command("ZADD", f"queues:delayed:{lane}", due_at, task_id)
        else:
            self.command("XADD", f"queues:{lane}", "*", "task_id", task_id, "enqueue_time", 1_700_000_000_000)

    def end(self, task_id: str, success: bool, value: Any, ttl_ms: int = HOUR_MS) -> bytes:
        told = {"s": success, "r": value, "t": 2, "et": 1_700_000_000_000, "st": 1_700_000_001_000}
        outcome = self._dumps(told | {"ft": 1_700_000_002_000})
        self.command("SET", f"task:results:{task_id}", outcome, "PX", ttl_ms)
        self.command("ZADD", "index:results", 1_700_000_002_000 + ttl_ms, task_id)
        return outcome

    def bury(self, task_id: str, name: str, *args: Any, error: str, lane: str = "default", **kwargs: Any) -> None:
        outcome = self.end(task_id, False, error)
        payload = self._dumps({"f": name, "a": list(args), "k": kwargs, "t": 1_700_000_000_000})
        self.command("HSET", f"task:dead:{task_id}", "payload", payload, "result", outcome, "priority", lane)
        self.command("ZADD", "index:dead", 1_700_000_002_000, task_id)

    def claim(self, worker: str, count: int, alive: bool, lane: str = "default") -> None:
        read = ["XREADGROUP", "GROUP", "workers", worker, "COUNT", count, "STREAMS", f"{self._base}queues:{lane}", ">"]
        self._core.command(read)
        if alive:
            info = json.dumps({"id": worker, "host": "there", "pid": 17, "version": "1.2.0"})
            self.command("SET", f"health:{worker}", info, "PX", 60_000)

    def left(self) -> set[str]:
        """The keys that hold tasks."""
        keys = {key.decode().removeprefix(self._base) for key in self._core.command(["KEYS", f"{self._base}*"])}
        streams = {key for key in keys if key.startswith("queues:") and not key.startswith("queues:delayed:")}
        return {key for key in keys - streams if not key.startswith("health:")} | {
            key for key in streams if self.command("XLEN", key)
        }


@pytest.fixture
def app(make_app: Callable[..., Ardiq]) -> Ardiq:
    app = make_app(priorities=["low", "default", "high"])

    @app.task
    async def add(a: int, b: int = 0) -> int:
        return a + b

    @app.task(max_retries=3)
    async def tries() -> int:
        context = current_task()
        assert context is not None
        return context.tries

    @app.cron("0 0 * * *")
    async def nightly() -> None: ...

    return app


@pytest.fixture
def old(app: Ardiq) -> Forerunner:
    return Forerunner(app)


@pytest.fixture
def migrate(app: Ardiq, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr("ardiq.cli._from_1_2.load_app", lambda target, queue=None: app.queue(queue) if queue else app)

    def run(*words: str) -> tuple[int, str]:
        code = main(["migrate", "--from-1.2", "jobs:app", *words])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


async def test_everything_is_moved_and_runs(app: Ardiq, old: Forerunner, migrate: Callable[..., Any]) -> None:
    due_at = int(time.time() * 1000) + HOUR_MS
    for number in range(3):
        old.enqueue(f"q{number}", "add", number, 1)
    old.enqueue("first", "add", 5, b=6, lane="high", headers={"trace": "abc"})
    old.enqueue("later", "add", 1, due_at=due_at)
    old.enqueue("overdue", "add", 2, due_at=1_700_000_000_000)
    old.enqueue("again", "tries", due_at=1_700_000_000_000, tries=2)
    old.bury("dead", "add", "x", error="TypeError('no')", b=2)
    old.end("done", True, {"answer": 42})
    old.end("gone", False, "ValueError('no')")
    old.end("stopped", False, "aborted")

    code, printed = migrate()
    assert code == 0, printed
    assert "moved: 6 queued, 1 scheduled, 1 dead letter, 3 results" in printed
    assert printed.count("1 dead letter, 3 results") == 2, "as in the plan: the result of a dead letter is a part of it"
    assert old.left() == set()
    assert is_sound(app)

    assert app.context.server.core.command(["LRANGE", f"ardiq:{{{app.queue_name}}}:ready:default", 0, 2]) == [
        b"again",
        b"overdue",
        b"q0",
    ], "what is overdue first, then in the order of the stream"
    assert field(app, "first", "headers") == '{"trace":"abc"}'
    info = await app.info("later")
    assert info is not None
    assert (info.status, info.scheduled_at, info.enqueue_time) == ("scheduled", due_at, 1_700_000_000_000)
    (letter,) = await app.dead_letters()
    assert (letter.task_id, letter.fn_name, letter.args, letter.kwargs) == ("dead", "add", ("x",), {"b": 2})
    assert (letter.error, letter.tries, letter.failed_at) == ("TypeError('no')", 2, 1_700_000_002_000)
    done = await app.result("done")
    assert done is not None
    assert (done.success, done.value, done.tries, done.duration_ms) == (True, {"answer": 42}, 2, 1000)
    gone, stopped = await app.result("gone"), await app.result("stopped")
    assert gone is not None
    assert (gone.success, gone.value, gone.aborted) == (False, "ValueError('no')", False)
    assert stopped is not None
    assert stopped.aborted

    await drain(app)
    assert [(await result_of(Job(app, f"q{number}"))).value for number in range(3)] == [1, 2, 3]
    assert (await result_of(Job(app, "first"))).value == 11
    assert (await result_of(Job(app, "again"))).value == 3, "the tries it had count"
    assert await app.replay("dead") is not None


def test_a_plan_changes_nothing(app: Ardiq, old: Forerunner, migrate: Callable[..., Any]) -> None:
    assert migrate("--check") == (0, f"{app.queue_name}, as ArdiQ 1.2 left it: nothing\n")
    old.enqueue("a", "add", 1)
    old.enqueue("b", "add", 1, lane="high")
    before = old.left()
    code, printed = migrate("--dry-run")
    counted = "2 queued (default 1, high 1), 0 scheduled, 0 dead letters, 0 results"
    assert (code, printed) == (0, f"{app.queue_name}, as ArdiQ 1.2 left it: {counted}\n")
    assert migrate("--check")[0] == 1
    assert old.left() == before
    code, printed = migrate("--json")
    (facts,) = json.loads(printed)["queues"]
    assert code == 0
    assert facts["moved"] == {"queued": 2}
    assert migrate()[0] == 0, "again there is nothing to do"


def test_an_interrupted_move_goes_on_where_it_was(
    app: Ardiq, old: Forerunner, migrate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(250):
        old.enqueue(f"q{number}", "add", number)
        old.end(f"r{number}", True, number)
    take, pages = Old._take, 0

    def interrupted(self: Old, kind: str, page: Any) -> Any:
        nonlocal pages
        pages += 1
        answers = take(self, kind, page)
        if pages == 2:
            raise KeyboardInterrupt  # the reply of the second page is lost
        return answers

    with monkeypatch.context() as patched:
        patched.setattr(Old, "_take", interrupted)
        code, _ = migrate()
    assert code != 0
    code, printed = migrate()
    assert code == 0
    assert "moved: 50 queued, 250 results" in printed
    ready = app.context.server.core.command(["LRANGE", f"ardiq:{{{app.queue_name}}}:ready:default", 0, -1])
    assert ready == [f"q{number}".encode() for number in range(250)]
    assert is_sound(app)


def test_what_living_workers_hold_is_left_to_them(app: Ardiq, old: Forerunner, migrate: Callable[..., Any]) -> None:
    for number in range(3):
        old.enqueue(f"q{number}", "add", number)
    old.claim("w1", 1, alive=True)
    old.claim("w2", 1, alive=False)
    code, printed = migrate()
    assert code == 1
    assert "refused: 1 worker of ArdiQ 1.2 still alive: w1 (process 17 on there)" in printed
    assert len(old.left()) == 4
    code, printed = migrate("--force")
    assert code == 1, "something is left"
    assert "moved: 2 queued" in printed
    assert "1 claimed by a live worker of ArdiQ 1.2: left to it" in printed
    assert old.left() == {"queues:default", "task:data:q0"}
    assert old.command("XPENDING", "queues:default", "workers")[0] == 1
    old.command("DEL", "health:w1")
    assert "moved: 1 queued" in migrate()[1]
    assert is_sound(app)


@pytest.mark.parametrize("finished", [False, True])
def test_a_worker_that_is_faster(
    app: Ardiq, old: Forerunner, migrate: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    old.enqueue("q", "add", 1)
    take = Old._take

    def late(self: Old, kind: str, page: Any) -> Any:
        old.claim("w1", 1, alive=True)
        if finished:
            entry = page[0][0]
            old.command("XACK", "queues:default", "workers", entry)
            old.command("XDEL", "queues:default", entry)
            old.command("DEL", "task:data:q")
        return take(self, kind, page)

    monkeypatch.setattr(Old, "_take", late)
    migrate()
    assert app.context.server.core.command(["EXISTS", f"ardiq:{{{app.queue_name}}}:task:q"]) == 0


async def test_an_id_that_is_in_use_here_belongs_to_the_newer_task(
    app: Ardiq, old: Forerunner, migrate: Callable[..., Any]
) -> None:
    add = app.ref("add")
    await add.options(task_id="waits").enqueue(1)
    await add.options(task_id="finished").enqueue(2)
    await app.abort("finished")
    old.enqueue("waits", "add", 10)
    old.enqueue("finished", "add", 20)
    old.end("waits", True, "old")
    code, printed = migrate()
    assert code == 0
    assert "moved: 1 queued\n2 not moved, because the queue has a newer task of the same id: removed" in printed
    await drain(app)
    assert (await result_of(Job(app, "waits"))).value == 1
    assert (await result_of(Job(app, "finished"))).value == 20


async def test_an_identical_call_finds_the_unique_one_that_was_moved(
    app: Ardiq, old: Forerunner, migrate: Callable[..., Any]
) -> None:
    # As ArdiQ 1.2.0 names `uniq.enqueue(1, k=2)`, a task of `@app.task(unique=True)`.
    old.enqueue("unique:uniq:ad5c57f49a4f96af86c8b5e0ce283f23", "uniq", 1, k=2)
    migrate()
    job = await app.ref("uniq", unique=True).enqueue(1, k=2)
    assert job.id == "unique:uniq:ad5c57f49a4f96af86c8b5e0ce283f23"
    assert await app.queue_size() == 1


def test_what_was_aborted_or_has_expired_does_not_run(app: Ardiq, old: Forerunner, migrate: Callable[..., Any]) -> None:
    old.enqueue("aborted", "add", 1)
    old.command("SET", "task:abort:aborted", "1", "PX", HOUR_MS)
    old.enqueue("expired", "add", 1)
    old.command("DEL", "task:data:expired")
    old.enqueue("expires", "add", 1, expire_ms=HOUR_MS)
    code, printed = migrate()
    assert code == 0
    assert "moved: 1 queued, 1 aborted\n1 had expired" in printed
    assert field(app, "aborted", "state") == "aborted"
    assert field(app, "expired", "state") is None
    assert 0 < int(field(app, "expires", "expires_at") or 0) - time.time() * 1000 <= HOUR_MS
    assert old.left() == set()


def test_the_next_occurrence_of_a_cron_is_left_to_its_schedule(
    app: Ardiq, old: Forerunner, migrate: Callable[..., Any]
) -> None:
    due_at = int(time.time() * 1000) + HOUR_MS
    old.enqueue(f"cron:nightly:{due_at}", "nightly", due_at=due_at)
    old.enqueue("cron:nightly:1700000000000", "nightly", due_at=due_at, tries=1)
    old.enqueue(f"cron:elsewhere:{due_at}", "elsewhere", due_at=due_at)
    code, printed = migrate()
    assert code == 0
    assert "moved: 2 scheduled\n1 occurrences of schedules that the code creates again: removed" in printed
    assert field(app, "cron:nightly:1700000000000", "tries") == "1", "a retry of one that ran is none"
    assert old.left() == set()


async def test_an_own_serializer_and_bytes(make_app: Callable[..., Ardiq], migrate_of: Callable[..., Any]) -> None:
    def dumps(value: Any) -> bytes:
        return b"j" + json.dumps(value).encode()

    own = make_app(serializer=dumps, deserializer=lambda data: json.loads(data[1:]))
    plain = make_app()
    for app, old, value in ((own, Forerunner(own, dumps), "text"), (plain, Forerunner(plain), b"\x00\xff")):

        @app.task
        async def echo(given: Any) -> Any:
            return given

        old.enqueue("q", "echo", value)
        old.end("r", True, value)
        assert migrate_of(app)[0] == 0
        await drain(app)
        assert (await result_of(Job(app, "q"))).value == value
        assert (await result_of(Job(app, "r"))).value == value


@pytest.fixture
def migrate_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def run(app: Ardiq) -> tuple[int, str]:
        monkeypatch.setattr("ardiq.cli._from_1_2.load_app", lambda target, queue=None: app)
        code = main(["migrate", "--from-1.2", "jobs:app"])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


def test_what_cannot_be_read_stays_and_is_named(app: Ardiq, old: Forerunner, migrate: Callable[..., Any]) -> None:
    old.enqueue("good", "add", 1)
    old.enqueue("bad", "add", 1)
    old.command("SET", "task:data:bad", b"\xc1")
    code, printed = migrate()
    assert code == 1
    assert "left: bad: " in printed
    assert "moved: 1 queued\n1 cannot be read: left" in printed
    assert "still there: 1 queued" in printed
    assert old.left() == {"queues:default", "task:data:bad"}


def test_a_lane_that_nobody_serves(app: Ardiq, old: Forerunner, migrate: Callable[..., Any]) -> None:
    old.enqueue("q", "add", 1, lane="bulk")
    code, printed = migrate()
    assert code == 1
    assert "refused: no worker of this app serves bulk: add it to priorities=" in printed
    assert old.left() == {"queues:bulk", "task:data:q"}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["redis://localhost"], "--from-1.2 needs the app"),
        ([], "--from-1.2 needs the app"),
        (["jobs:app", "--acl"], "--acl cannot be combined with --from-1.2"),
        (["jobs:app", "--to", "1"], "--to cannot be combined with --from-1.2"),
        (["status", "jobs:app"], "--from-1.2 cannot be combined with status"),
    ],
)
def test_words_that_do_not_go_with_it(words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", "--from-1.2", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_names_with_letters_that_match_anything(make_app: Callable[..., Ardiq], migrate_of: Callable[..., Any]) -> None:
    app, other = make_app(queue_name="a*c[x]"), make_app(queue_name="abc[x]")
    Forerunner(other).enqueue("q", "add", 1)
    assert migrate_of(app) == (0, "a*c[x], as ArdiQ 1.2 left it: nothing\n")
    assert Forerunner(other).command("XLEN", "queues:default") == 1


def test_a_queue_that_had_braces_in_its_name(app: Ardiq, migrate: Callable[..., Any]) -> None:
    name = f"{app.queue_name}-mails"
    old = Forerunner(app, queue=f"{{{name}}}")
    old.enqueue("q", "add", 1)
    code, printed = migrate("--queue", f"{{{name}}}")
    assert code == 0
    assert printed.startswith(f"{{{name}}}, as ArdiQ 1.2 left it: 1 queued")
    assert Job(app.queue(name), "q").status_sync() == "queued"
    assert old.command("XLEN", "queues:default") == 0
    old.command("DEL", "queues:default")
