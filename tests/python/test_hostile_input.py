"""What nobody should pass or write, passed and written: an error that says so, or a dead letter; never the end of a
worker, never a key outside the queue."""

import ast
import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, eventually, field, result_of, working
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ardiq
from ardiq import Ardiq, ArdiqError, _core
from ardiq.embedded import Server

HUGE = "x" * 10_000_000
NASTY = [
    "", " ", "a{b}c", "a}b", "{", "a\nb", "a\x00b", "\x1b[31m", "\ud800", "ä€😀", "'; FLUSHALL", "*", "?[a]", "a:b",
    ":", "\r\n$5\r\nhello", '"', "\\", "-1", "task:x", "ready:default", "x" * 5000, HUGE,
]  # fmt: skip
REFUSED = (TypeError, ValueError, ArdiqError)
LONGEST_MESSAGE = 2_000


def shown(text: str) -> str:
    return ascii(text) if len(text) < 50 else f"{len(text)} letters"


@pytest.fixture
def own(make_app: Callable[..., Ardiq]) -> Iterator[Callable[..., Ardiq]]:
    """Makes apps on a server of their own, where afterwards every key must be of the queue of one of them."""
    apps: list[Ardiq] = []
    with Server() as server:

        def make(**options: Any) -> Ardiq:
            apps.append(make_app(**{"redis_url": server.url, "poll_block_ms": 200, **options}))
            return apps[-1]

        yield make
        core = _core.Core(server.url, "x:{x}:")
        bases = [app.context.server.base.encode(errors="surrogateescape") for app in apps]
        known = (*bases, *(f"{app.prefix}:{name}".encode() for app in apps for name in ("queues", "schema")))
        strays = [key for key in core.command(["KEYS", "*"]) if not key.startswith(known)]
        core.close()
        assert strays == []


async def refused_or_done(call: Any) -> bool:
    """Whether it was done; if not, the error is one of ours and can be read."""
    try:
        async with asyncio.timeout(SOON_S):
            await call()
    except REFUSED as refused:
        check_message(refused)
        return False
    return True


def check_message(error: Exception) -> None:
    text = str(error)
    assert 0 < len(text) <= LONGEST_MESSAGE, f"{len(text)} letters: {text[:200]}"


@pytest.mark.parametrize("text", NASTY, ids=shown)
async def test_names_are_refused_or_work(own: Callable[..., Ardiq], text: str) -> None:
    """As a name of each kind; what is taken works to the end."""

    async def run_one(task_name: str = "echo", options: dict[str, Any] | None = None, **of_app: Any) -> None:
        app = own(**of_app)

        @app.task(name=task_name)
        async def echo(value: Any) -> Any:
            return value

        async with working(app):
            job = await echo.options(**(options or {})).enqueue(text)
            assert (await result_of(job)).value == text
            assert await job.status() == "complete"

    async def send_unknown() -> None:
        app = own()
        async with working(app):
            job = await app.ref(text).options(expire_ms=60_000).enqueue()
            await eventually(lambda: field(app, job.id, "unknown_since"))
            await job.abort()

    await refused_or_done(lambda: run_one(queue_name=text))
    await refused_or_done(lambda: run_one(prefix=text))
    await refused_or_done(lambda: run_one(worker_id=text))
    await refused_or_done(lambda: run_one(priorities=[text, "other"], default_priority=text))
    await refused_or_done(lambda: run_one(task_name=text))
    await refused_or_done(lambda: run_one(options={"task_id": text}))
    await refused_or_done(send_unknown)


@pytest.mark.parametrize("text", NASTY, ids=shown)
async def test_questions_about_what_cannot_be_are_answered(own: Callable[..., Ardiq], text: str) -> None:
    app = own()
    for question in (app.status, app.info, app.result, app.abort, app.history, app.replay, app.delete_dead):
        await refused_or_done(lambda question=question: question(text))
    for pausing in ({"task": text}, {"argument": {text: 1}}, {"argument": {"a": text}}):
        if await refused_or_done(lambda pausing=pausing: app.pause(**pausing)):
            assert await app.resume(**pausing)
    for schedule in (app.schedules.pause, app.schedules.remove, app.schedules.run_now):
        await refused_or_done(lambda schedule=schedule: schedule(text))
    if await refused_or_done(lambda: app.schedules.put(text, text, every=3600, args=[text])):
        assert [row.name for row in await app.schedules.list()] == [text]
        assert await app.schedules.remove(text)
    await refused_or_done(lambda: app.dead.list(task=text, error=text))
    await refused_or_done(lambda: app.dead.requeue([text]))
    assert await app.queue_size() == 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.characters() | st.binary() | st.uuids()
    | st.datetimes() | st.dates() | st.decimals(allow_nan=False) | st.complex_numbers(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    | st.sets(st.integers(), max_size=3) | st.tuples(inner, inner),
    max_leaves=12,
)  # fmt: skip


def test_arguments_arrive_as_they_were_sent_or_are_refused(server: Server) -> None:
    """Any value, also as a keyword and deep inside; tuples arrive as lists."""
    app = Ardiq(server.url, queue_name="any-arguments", result_ttl_ms=1000)
    arrived: list[Any] = []

    @app.task
    async def keep(*args: Any, **kwargs: Any) -> None:
        arrived.append((list(args), kwargs))

    sent: list[Any] = []

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(VALUES, max_size=3), st.dictionaries(st.text(), VALUES, max_size=2))
    def enqueue(args: list[Any], kwargs: dict[str, Any]) -> None:
        try:
            keep.enqueue_sync(*args, **kwargs)
        except REFUSED as refused:
            check_message(refused)
        else:
            sent.append((args, kwargs))

    enqueue()
    app.burst = True
    asyncio.run(app.run())
    app.context.server.close()
    assert len(arrived) == len(sent)
    assert sorted(map(repr, map(as_lists, sent))) == sorted(map(repr, map(as_lists, arrived)))


def as_lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [as_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: as_lists(item) for key, item in value.items()}
    return value


def test_nesting_without_end_is_refused(app: Ardiq) -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for value in (endless, deep, object(), lambda: None, Path, iter([])):
        for args, kwargs in (([value], {}), ([], {"n": value})):
            with pytest.raises(REFUSED) as refused:
                app.ref("any").enqueue_sync(*args, **kwargs)
            check_message(refused.value)


@asynccontextmanager
async def still_working(app: Ardiq) -> AsyncIterator[None]:
    """A worker runs, and when the block has ended it still runs tasks."""

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with working(app) as run:
        assert await add.request(1, 2, timeout=SOON_S) == 3
        yield
        assert not run.done()
        assert await add.request(3, 4, timeout=SOON_S) == 7


JUNK = [b"", b"junk", b"\xff\xfe\x00", b"-1", b"1e400", b"nan", b"9" * 400, b"[", b'{"a":', b"\r\n", b"[" * 100_000]
FIELDS = [
    "state", "name", "args", "kwargs", "codec", "headers", "lane", "tries", "lost", "enqueued_at", "expires_at",
    "idempotency_key", "abort_requested", "history", "worker", "result", "error", "due_at", "pause", "quarantined",
]  # fmt: skip


@pytest.mark.damages_keys
@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: repr(junk[:12]))
async def test_records_somebody_wrote_into_harm_only_themselves(app: Ardiq, junk: bytes) -> None:
    """Each field of a record is overwritten in a task of its own; the others run."""
    base, core = app.context.server.base, app.context.server.core
    add = app.ref("add")
    await app.enqueue_many(add.options(task_id=name).prepare(1, 2) for name in ["first", *FIELDS, "last"])
    for name in FIELDS:
        core.command(["HSET", f"{base}task:{name}", name, junk])
    async with still_working(app):
        results = [await app.result(name, timeout=SOON_S) for name in ("first", "last")]
        assert [result and result.value for result in results] == [3, 3]
        for field in FIELDS:
            for question in (app.status, app.info, app.history, app.abort):
                await refused_or_done(lambda question=question, field=field: question(field))
            await refused_or_done(lambda field=field: app.result(field))


def wrong_types(base: str) -> list[str]:
    keys = json.loads(_core.PROTOCOL)["keys"]
    return [base + name for name in keys if "<" not in name and not name.startswith("ardiq")]


@pytest.mark.damages_keys
@pytest.mark.parametrize("seed", range(4))
async def test_keys_somebody_replaced_are_survived_and_worked_on_when_they_are_gone(app: Ardiq, seed: int) -> None:
    """The kind of every key there is, replaced by another kind, one after the other while the worker works."""
    rng = random.Random(seed)
    base, core = app.context.server.base, app.context.server.core

    async def replace(key: bytes) -> None:
        # At once: the worker writes, too.
        junk = f"{base}junk"
        writes = [["SET", junk, "junk"], ["RPUSH", junk, "junk"], ["HSET", junk, "junk", "junk"]]
        core.command(rng.choice([*writes, ["SADD", junk, "junk"], ["ZADD", junk, "inf", "junk"]]))
        core.command(["RENAME", junk, key])
        await refused_or_done(lambda: app.ref("add").enqueue(1, 1))
        await refused_or_done(app.queue_size)
        await asyncio.sleep(0.02)
        core.command(["DEL", key])

    async with still_working(app):
        await app.ref("add").options(delay=3600).enqueue(1, 1)
        await app.pause("never")
        await app.schedules.put("hourly", "add", every=3600, args=[1, 1])
        keys = core.command(["KEYS", f"{base}*"]) + [key.encode() for key in wrong_types(base)]
        for key in rng.sample(sorted(set(keys)), k=len(set(keys))):
            await replace(key)


@pytest.mark.damages_keys
async def test_messages_nobody_should_send_are_dropped(app: Ardiq) -> None:
    """Into the mailboxes of a worker and of who waits for a result: neither ends, neither loses the true message."""
    base, core = app.context.server.base, app.context.server.core
    fields = [b"", b"junk", b"\xff", b"1", b"finished", b"abort", b"x" * 100_000]

    def message(*parts: bytes) -> bytes:
        return b"".join(b"%d:%b," % (len(part), part) for part in parts)

    messages = [message(*combination) for kind in fields for combination in ((), (kind,), (kind, kind), (kind,) * 12)]
    # With seven more fields it would be an outcome, and a later version may say more.
    messages += [message(b"finished", b"slow", *[junk] * n) for junk in fields for n in range(1, 7)]
    messages += [message(b"abort", junk) for junk in JUNK] + JUNK

    @app.task
    async def slow() -> str:
        await asyncio.sleep(0.5)
        return "done"

    async with still_working(app):
        job = await slow.options(task_id="slow").enqueue()
        waiting = asyncio.ensure_future(result_of(job))
        own = (await app.context.server.channel(asyncio.get_running_loop()).mailbox.name()).encode()
        worker = core.command(["ZRANGE", f"{base}workers", "0", "-1"])
        names = [own, *(b"%b:%d" % (name, generation) for name in worker for generation in (0, 1)), *worker]
        for text in random.Random(1).sample(messages, k=len(messages)):
            for name in names:
                core.command(["RPUSH", base.encode() + b"mailbox:" + name, text])
        assert (await waiting).value == "done"


REPLIES = [
    "nil", "{}", "{ {} }", "''", "'junk'", "-1", "1", "true", "{ err = 'ERR junk' }", "{ ok = 'OK' }", "{ 0, -1 }",
    "{ 'x', 'y', 'z' }", "{ 0, -1, 5 }", "{ 0, -1, -1 }", "{ 0, -1, 0, 'a' }",
    "{ 0, -1, 0, {}, {}, {}, {}, {}, {}, {}, {}, {}, {} }",
    "{ 0, -1, 0, 'id', 'x', 'add', '[1,2]', '', '', '', 'default', '1', '0' }",
    "{ 0, -1, 0, 'id', '99999999999999999999', 'add', '[1,2]', '', '', '', 'default', '1', '0' }",
    "{ 9007199254740993, -9007199254740993, 0 }", "string.rep('x', 1000000)", "{ '\\255\\254', '\\0', '\\r\\n' }",
]  # fmt: skip
CALLED = ["step", "heartbeat", "join", "enqueue", "await", "counts", "task", "abort"]


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: reply[:30])
async def test_replies_of_the_wrong_shape_are_survived(own: Callable[..., Ardiq], reply: str) -> None:
    """The server's functions answer nonsense for a while; then the true ones are back."""
    app = own()
    core = app.context.server.core

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with working(app) as run:
        assert await add.request(1, 2, timeout=SOON_S) == 3
        true, _ = _core.library()
        names = [function["library_code"] for function in listed(core)]
        assert names == [true]
        library = f"ardiq_v{_core.PROTOCOL_VERSION}"
        functions = "".join(
            f"server.register_function{{function_name='{library}_{name}', callback=function() return {reply} end, "
            f"flags={{'no-writes', 'allow-oom'}}}}\n"
            for name in json.loads(_core.PROTOCOL)["functions"]
        )
        core.command(["FUNCTION", "LOAD", "REPLACE", f"#!lua name={library}\n{functions}"])
        for call in (add.enqueue, app.queue_size):
            await wrongly_answered(lambda call=call: call(1, 2) if call is add.enqueue else call())
        for question in (app.status, app.info, app.abort, app.history, app.result):
            await wrongly_answered(lambda question=question: question("any"))
        await asyncio.sleep(0.3)
        core.command(["FUNCTION", "LOAD", "REPLACE", true])
        assert not run.done()
        assert await add.request(3, 4, timeout=SOON_S) == 7


async def wrongly_answered(call: Any) -> None:
    """Whatever comes of it comes soon."""
    async with asyncio.timeout(SOON_S):
        try:
            await call()
        except TimeoutError:
            raise
        except Exception:
            return


def listed(core: _core.Core) -> list[dict[str, str]]:
    libraries = core.command(["FUNCTION", "LIST", "WITHCODE"])
    return [{row[i].decode(): as_text(row[i + 1]) for i in range(0, len(row), 2)} for row in libraries]


def as_text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def test_nothing_here_loads_pickle() -> None:
    """Unless a user brings it as a codec."""
    for path in Path(ardiq.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = getattr(node, "module", None) if isinstance(node, ast.ImportFrom) else None
            loaded = {str(name).partition(".")[0] for name in [*names, module]}
            assert not loaded & {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}, path
            assert not (isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("eval", "exec")), path
