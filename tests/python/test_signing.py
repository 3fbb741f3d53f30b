"""`signing_key`: a worker runs what was enqueued with the key, and nothing else."""

import pickle
from collections.abc import Callable
from typing import Any

import pytest
from helpers import drain, eventually, is_sound, result_of, working
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ardiq import Ardiq, BadSignature, ErrorContext, ExecutionContext, Job
from ardiq._values.signing import Signer
from ardiq.testing import inline

KEY, NEW_KEY = "first-secret-of-32-bytes-or-more", b"\x00second\xffsecret of bytes"


class Pair:
    """A producer and a worker of one queue, which may have different keys."""

    def __init__(self, make_app: Callable[..., Ardiq], theirs: Any, ours: Any, **options: Any) -> None:
        self.worker = make_app(signing_key=ours, **options)
        self.producer = make_app(signing_key=theirs, queue_name=self.worker.queue_name)
        self.ran: list[tuple[Any, ...]] = []
        self.errors: list[ErrorContext] = []
        self.worker.on_error(self.errors.append)

        @self.worker.task
        async def note(*args: Any, **kwargs: Any) -> None:
            self.ran.append((args, kwargs))

        @self.worker.task
        def note_sync(*args: Any, **kwargs: Any) -> None:
            self.ran.append((args, kwargs))

    async def drain(self) -> None:
        await drain(self.worker)
        assert is_sound(self.worker)

    async def assert_refused(self, job: Job, why: str) -> None:
        """It failed at once, unrun, and lies among the dead letters."""
        await self.drain()
        assert self.ran == []
        result = await result_of(job)
        assert (result.success, result.tries) == (False, 1)
        assert result.value.startswith("BadSignature(")
        assert why in result.value
        assert [letter.task_id for letter in await self.worker.dead_letters()] == [job.id]
        assert [(type(error.exc), error.will_retry) for error in self.errors] == [(BadSignature, False)]


@pytest.fixture
def pair(make_app: Callable[..., Ardiq]) -> Callable[..., Pair]:
    return lambda theirs=KEY, ours=KEY, **options: Pair(make_app, theirs, ours, **options)


@pytest.mark.parametrize("name", ["note", "note_sync"])
async def test_what_was_signed_runs_by_whatever_path_it_came(pair: Callable[..., Pair], name: str) -> None:
    two = pair()
    task = two.producer.ref(name)
    await task.enqueue()
    await task.enqueue("ä", n=1)
    await task.enqueue(b"bytes travel as msgpack", at={1: 2})
    await task.options(unique=True).enqueue(7)
    await task.options(delay_ms=1, task_id="mine", expire_ms=60_000).enqueue()
    await two.producer.enqueue_many([task.prepare(1), task.prepare(2)])
    task.enqueue_sync(3)
    async with working(two.worker):
        assert await task.request(4, timeout=20) is None
        await eventually(lambda: len(two.ran) == 9)
    assert two.errors == []


@pytest.mark.parametrize("name", ["note", "note_sync", "unknown"])
@pytest.mark.parametrize(
    ("theirs", "why"), [(None, "has no signature"), (NEW_KEY, "was signed with another key, or changed since")]
)
async def test_what_was_not_signed_with_the_key_is_dead_lettered_unrun(
    pair: Callable[..., Pair], name: str, theirs: Any, why: str
) -> None:
    two = pair(theirs=theirs)
    await two.assert_refused(await two.producer.send(name, 1), why)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "note_sync"),
        ("args", "[2]"),
        ("args", ""),
        ("kwargs", '{"n": 1}'),
        ("codec", "msgpack"),
        ("headers", '{"ardiq-signature":"AAAAAAAAAAAAAAAAAAAAAA"}'),
        ("headers", '{"ardiq-signature":7}'),
        ("headers", '{"ardiq-signature":"\\ud800"}'),
        ("headers", '{"ardiq-signature":null}'),
        ("headers", '{"\\ud800":1,"ardiq-signature":"x"}'),
        ("headers", "{}"),
        ("headers", "[]"),
        ("headers", "7"),
        ("headers", "nonsense \x00"),
        ("headers", ""),
        ("headers", "[" * 100_000),
    ],
)
async def test_a_record_that_was_changed_is_dead_lettered_unrun(
    pair: Callable[..., Pair], field: str, value: str
) -> None:
    two = pair()
    job = await two.producer.send("note", 1)
    two.worker.context.server.core.command(["HSET", f"{two.worker.context.server.base}task:{job.id}", field, value])
    await two.assert_refused(job, "this call of")


async def test_a_header_added_to_a_signed_call_is_noticed(pair: Callable[..., Pair]) -> None:
    two = pair()
    job = await two.producer.send("note", 1)
    key = f"{two.worker.context.server.base}task:{job.id}"
    headers = two.worker.context.server.core.command(["HGET", key, "headers"]).decode()
    assert len(headers) <= 64, "a longer one would take the record out of its compact form"
    two.worker.context.server.core.command(["HSET", key, "headers", headers.replace("{", '{"user":"admin",')])
    await two.assert_refused(job, "changed since")


async def test_a_call_that_was_copied_to_another_queue_is_noticed(pair: Callable[..., Pair]) -> None:
    two = pair()
    elsewhere = await two.producer.queue("elsewhere").send("note", 1)
    core = two.worker.context.server.core
    headers = core.command(["HGET", f"ardiq:{{elsewhere}}:task:{elsewhere.id}", "headers"])
    job = Job(two.worker, "copied")
    options = b'{"headers":"' + headers.replace(b'"', b'\\"') + b'"}'
    assert core.call("enqueue", [job.id, "note", "default", "[1]", "", options]) == [b"queued"]
    await two.assert_refused(job, "changed since")


async def test_keys_are_rotated_without_a_gap(pair: Callable[..., Pair]) -> None:
    """First all take both, then all sign with the new one, then the old one goes."""
    for theirs, ours, runs in [
        (KEY, [KEY, NEW_KEY], True),
        (NEW_KEY, [KEY, NEW_KEY], True),
        ([NEW_KEY, KEY], [NEW_KEY], True),
        (KEY, [NEW_KEY], False),
    ]:
        two = pair(theirs=theirs, ours=ours)
        await two.producer.send("note")
        await two.drain()
        assert len(two.ran) == runs


async def test_unsigned_calls_may_be_taken_while_not_all_producers_have_a_key(pair: Callable[..., Pair]) -> None:
    two = pair(theirs=None, takes_unsigned=True)
    await two.producer.send("note", 1)
    await two.drain()
    assert two.ran == [((1,), {})]
    forged = pair(theirs=NEW_KEY, takes_unsigned=True)
    await forged.assert_refused(await forged.producer.send("note", 1), "another key")


async def test_a_worker_without_a_key_takes_signed_calls(pair: Callable[..., Pair]) -> None:
    two = pair(ours=None)
    await two.producer.send("note", 1)
    await two.drain()
    assert two.ran == [((1,), {})]


async def test_headers_of_hooks_are_signed_and_the_signature_is_not_among_them(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(signing_key=KEY)
    seen: list[dict[str, Any]] = []

    @app.on_enqueue
    def trace(call: Any) -> None:
        call.headers.update(trace="ä", depth=1.5, nested={"a": [1, None]})

    @app.middleware
    async def look(context: ExecutionContext, call_next: Callable[[], Any]) -> Any:
        seen.append(context.headers)
        return await call_next()

    @app.task
    async def note() -> None: ...

    job = await note.enqueue()
    await drain(app)
    assert (await result_of(job)).success
    assert seen == [{"trace": "ä", "depth": 1.5, "nested": {"a": [1, None]}}]

    @app.on_enqueue
    def clash(call: Any) -> None:
        call.headers["ardiq-signature"] = "mine"

    with pytest.raises(ValueError, match="header 'ardiq-signature' of task 'note' is reserved"):
        await note.enqueue()


async def test_schedules_are_signed(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(signing_key=KEY)
    seen: list[Any] = []

    @app.cron(every=0.1)
    async def tick() -> None:
        seen.append("tick")

    @app.task
    async def note(*args: Any, **kwargs: Any) -> None:
        seen.append((args, kwargs))

    await app.schedules.put("by hand", "note", every=0.1, args=[1], kwargs={"n": 2})
    async with working(app):
        await eventually(lambda: "tick" in seen and ((1,), {"n": 2}) in seen)
        assert await app.schedules.run_now("by hand")
    assert await app.dead_count() == 0


async def test_a_dead_letter_runs_again_with_other_arguments_and_its_headers(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(signing_key=KEY)
    seen: list[Any] = []

    @app.on_enqueue
    def trace(call: Any) -> None:
        call.headers["trace"] = "one"

    @app.middleware
    async def look(context: ExecutionContext, call_next: Callable[[], Any]) -> Any:
        seen.append((context.headers, *context.args))
        return await call_next()

    @app.task(max_retries=0)
    async def divide(by: int) -> float:
        return 1 / by

    job = await divide.enqueue(0)
    await drain(app)
    assert await app.dead.requeue(job.id, args=[2]) == 1
    await drain(app)
    assert (await result_of(job)).value == 0.5
    assert seen == [({"trace": "one"}, 0), ({"trace": "one"}, 2)]


async def test_a_schedule_that_was_not_signed_is_not_signed_when_it_is_run_now(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(signing_key=KEY)
    forger = make_app(queue_name=app.queue_name)
    await forger.schedules.put("theirs", "note", every=3600, args=[1])
    await app.schedules.put("changed", "note", every=3600, args=[1])
    key = f"{app.context.server.base}schedules"
    core = app.context.server.core
    core.command(["HSET", key, "changed", core.command(["HGET", key, "changed"]).replace(b"[1]", b"[2]")])
    for name in ("theirs", "changed"):
        with pytest.raises(BadSignature, match=f"schedule '{name}': this call of 'note' .*; put it again"):
            await app.schedules.run_now(name)
    assert await app.queue_size() == 0


async def test_a_dead_letter_that_was_not_signed_is_not_signed_when_its_arguments_change(
    make_app: Callable[..., Ardiq], caplog: pytest.LogCaptureFixture
) -> None:
    """Its name and its other headers would stay, and somebody else may have written them."""
    app = make_app(signing_key=KEY)
    forger = make_app(queue_name=app.queue_name)

    @app.task(max_retries=0)
    async def divide(by: int) -> float:
        return 1 / by

    theirs = await forger.send("divide", 1)
    ours = await app.send("divide", 0)
    changed = await app.send("divide", 0)
    await drain(app)
    app.context.server.core.command(
        ["HSET", f"{app.context.server.base}task:{changed.id}", "headers", '{"user":"admin"}']
    )
    for job in (theirs, changed):
        with pytest.raises(
            BadSignature, match=f"dead letter '{job.id}': .* has no signature.*; enqueue the task again"
        ):
            await app.dead.requeue(job.id, args=[2])
    with caplog.at_level("WARNING", "ardiq"):
        assert await app.dead.requeue(task="divide", args=[2]) == 1
    assert sum("skipped" in line for line in caplog.messages) == 2
    await drain(app)
    assert (await result_of(ours)).value == 0.5
    assert await app.dead_count() == 2


async def test_an_own_deserializer_is_shown_nothing_unsigned(make_app: Callable[..., Ardiq]) -> None:
    loaded: list[bytes] = []

    def loads(data: bytes) -> Any:
        loaded.append(data)
        return pickle.loads(data)

    worker = make_app(signing_key=KEY, serializer=pickle.dumps, deserializer=loads)
    forger = make_app(queue_name=worker.queue_name, serializer=pickle.dumps, deserializer=pickle.loads)
    worker.task(name="note")(print)
    waiting = await forger.send("note", 1)
    with pytest.raises(BadSignature):
        await worker.info(waiting.id)
    await drain(worker)
    (letter,) = await worker.dead.list()
    assert "BadSignature" in letter.error
    assert "BadSignature" in repr(letter.args)
    assert loaded == []
    job = await worker.send("note", 2)
    info = await worker.info(job.id)
    assert info is not None
    assert info.args == (2,)


async def test_inline_signs_and_checks_alike() -> None:
    app = Ardiq("redis://localhost:1", signing_key=KEY)

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    async with inline(app):
        assert await add.request(1, 2) == 3


@pytest.mark.parametrize(
    ("key", "error", "says"),
    [
        ("short", ValueError, "signing_key must have at least 16 bytes"),
        ([KEY, "short"], ValueError, "signing_key must have at least 16 bytes"),
        ([], ValueError, "signing_key must have at least 16 bytes"),
        (7, TypeError, "signing_key must be a str, bytes, or a list of them, not int"),
        ([7], TypeError, "each of signing_key must be a str or bytes, not int"),
    ],
)
def test_impossible_keys_are_refused(key: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as refused:
        Ardiq("redis://localhost:1", signing_key=key)
    assert "short" not in str(refused.value)


def test_whether_unsigned_calls_are_taken_is_said_clearly() -> None:
    with pytest.raises(TypeError, match="takes_unsigned must be True or False, not str"):
        Ardiq("redis://localhost:1", signing_key=KEY, takes_unsigned="no")  # type: ignore[arg-type]


def test_a_key_is_not_shown() -> None:
    app = Ardiq("redis://localhost:1", signing_key=KEY)
    assert KEY not in repr(app)
    assert KEY not in str(vars(app))


PARTS = st.tuples(st.text(), st.text(), st.binary(), st.binary(), st.text())
HEADERS = st.dictionaries(
    st.text().filter(lambda name: name != "ardiq-signature"),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(), st.lists
    ),
    max_size=3,
)


# However slow the machine is.
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PARTS, HEADERS, st.data())
def test_no_part_of_a_call_can_be_changed(parts: Any, headers: Any, data: st.DataObject) -> None:
    signer = Signer([KEY.encode()], takes_unsigned=True)
    queue, *call = parts
    packed = signer.sign(queue, *call, headers).encode()
    signer.check(queue, *call, packed)
    other = data.draw(PARTS.filter(lambda other: [part or b"[]" for part in other[2:3]] != [parts[2] or b"[]"]))
    for changed in (other, (*parts[:2], other[2], *parts[3:])):
        with pytest.raises(BadSignature):
            signer.check(changed[0], *changed[1:], packed)


async def test_a_signed_schedule_is_run_now_by_who_has_no_key(make_app: Callable[..., Ardiq]) -> None:
    app = make_app(signing_key=KEY)

    @app.task
    async def note(*args: Any, **kwargs: Any) -> Any:
        return [*args, kwargs]

    await app.schedules.put("by hand", "note", every=3600, args=[1], kwargs={"n": 2})
    other = make_app(queue_name=app.queue_name)  # as `ardiq schedule run URL` makes one

    @other.on_enqueue
    def trace(call: Any) -> None:
        call.headers["trace"] = "that would break the signature"

    job = await other.schedules.run_now("by hand")
    assert job is not None
    await drain(app)
    assert (await result_of(job)).value == [1, {"n": 2}]
