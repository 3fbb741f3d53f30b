"""Pause and resume: of a queue, of a task's name, of an argument's value; from Python and the command line."""

import asyncio
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, is_sound, result_of, working

from ardiq import Ardiq, Job, Pause
from ardiq.cli import main
from ardiq.embedded import Server
from ardiq.errors import BadArgument


class Plan(Enum):
    FREE = "free"
    PAID = "paid"


def tasks(app: Ardiq) -> tuple[list[Any], Any, Any]:
    """What ran, and two tasks that say so."""
    ran: list[Any] = []

    @app.task
    async def send(customer: int | str, text: str = "") -> None:
        ran.append(("send", customer))

    @app.task
    async def bill(amount: int, customer: int, *more: int, attachment: bytes = b"") -> None:
        ran.append(("bill", customer))

    return ran, send, bill


async def states(*jobs: Job) -> list[str]:
    return [await job.status() for job in jobs]


async def test_a_paused_queue_starts_nothing_and_goes_on(app: Ardiq) -> None:
    ran, send, _ = tasks(app)
    async with working(app):
        await result_of(await send.enqueue(1))
        await app.pause()
        waiting = [await send.enqueue(2), await send.enqueue(3)]
        later = await send.options(delay_ms=1).enqueue(4)
        await eventually(lambda: is_queued(later))
        assert await states(*waiting) == ["queued", "queued"]
        assert await app.queue_size() == 3
        assert ran == [("send", 1)]
        assert await app.resume()
        for job in [*waiting, later]:
            await result_of(job)
    assert ran == [("send", 1), ("send", 2), ("send", 3), ("send", 4)]
    assert not await app.resume()


async def is_queued(job: Job) -> bool:
    return await job.status() == "queued"


async def test_an_idle_worker_of_a_paused_queue_blocks(app: Ardiq) -> None:
    _, send, _ = tasks(app)
    await app.pause()
    core = app.context.server.core
    async with working(app):
        await eventually(lambda: core.command(["ZCARD", f"ardiq:{{{app.queue_name}}}:workers"]))
        for _ in range(5):
            await send.enqueue(1)
        worker = core.command(["ZRANGE", f"ardiq:{{{app.queue_name}}}:workers", 0, -1])[0].decode()

        def steps() -> int:
            return int(core.command(["HGET", f"ardiq:{{{app.queue_name}}}:worker:{worker}", "seq"]) or 0)

        before = steps()
        await asyncio.sleep(0.5)
        # One that spins makes thousands; a wake-up for each enqueue and one for a wait that ended are fair.
        assert steps() - before < 50
        await app.resume()
        await eventually(lambda: has_size(app, 0))


async def has_size(app: Ardiq, size: int) -> bool:
    return await app.queue_size() == size


async def test_tasks_of_a_name_are_held_in_their_order_while_others_run(app: Ardiq) -> None:
    ran, send, bill = tasks(app)
    await app.pause(send)
    held = [await send.enqueue(number) for number in range(3)]
    await bill.enqueue(1, 7)
    await drain(app)
    assert ran == [("bill", 7)]
    assert await states(*held) == ["held"] * 3
    info = await held[0].info()
    assert info is not None
    assert info.status == "held"
    assert await app.queue_size() == 3
    assert is_sound(app)
    held.append(await send.enqueue(3))
    assert await app.resume("send")
    await drain(app)
    assert ran[1:] == [("send", number) for number in range(4)]
    assert await app.pauses() == []
    assert is_sound(app)


async def test_a_kill_switch_for_one_customer(app: Ardiq) -> None:
    ran, send, bill = tasks(app)
    await app.pause(argument={"customer": 42})
    await send.enqueue(42)
    await send.enqueue(customer=42)
    await send.enqueue(text="42", customer=41)
    await send.enqueue("42")
    await bill.enqueue(42, 7)
    await bill.enqueue(7, 42, 1, 2)
    await bill.enqueue(7, 42, attachment=b"\xff")  # travels as msgpack
    await bill.enqueue(8, 43, attachment=b"\xff")
    await app.send("unknown_here", customer=42)
    await drain(app)
    assert ran == [("send", 41), ("send", "42"), ("bill", 7), ("bill", 43)]
    (pause,) = await app.pauses()
    assert pause == Pause("*(customer=42)", None, "customer", 42, pause.paused_at, 5, False)
    assert is_sound(app)
    assert await app.resume(argument={"customer": 42})
    await drain(app)
    assert ran[4:] == [("send", 42), ("send", 42), ("bill", 42), ("bill", 42)]


@pytest.mark.parametrize(
    "value", ["acme", 'a "quoted" \\ name', "café ☃", 2**63, -1, True, Plan.PAID, uuid.UUID(int=7), "x" * 200]
)
async def test_values_of_every_kind_are_found(app: Ardiq, value: Any) -> None:
    ran: list[Any] = []
    others: list[Any] = ["other", 2**63 + 1, 0, False, None, [value], {"of": value}, 1.5]

    @app.task
    async def record(of: int | str | bool | Plan | uuid.UUID | list[Any] | dict[str, Any] | float | None) -> None:
        ran.append(of)

    typed = app.task(name="typed")(_typed(type(value), ran))
    await app.pause(argument={"of": value})
    held = [await typed.enqueue(value), await typed.enqueue(of=value)]
    for other in others:
        if not isinstance(value, Enum | uuid.UUID) or not isinstance(other, list | dict):
            await record.enqueue(other)
    await drain(app)
    assert await states(*held) == ["held", "held"]
    assert len(ran) == len(others) - (2 if isinstance(value, Enum | uuid.UUID) else 0)
    await app.resume(argument={"of": value})
    await drain(app)
    assert ran[-2:] == [value, value]


def _typed(kind: type, ran: list[Any]) -> Any:
    async def typed(of: Any) -> None:
        ran.append(of)

    typed.__annotations__["of"] = kind
    return typed


async def test_an_argument_by_its_position(app: Ardiq) -> None:
    ran, send, bill = tasks(app)
    await app.pause("bill", argument={1: 7})
    await bill.enqueue(1, 7)
    await bill.enqueue(7, 1)
    await send.enqueue(1, "7")
    await drain(app)
    assert ran == [("bill", 1), ("send", 1)]
    (pause,) = await app.pauses()
    assert (pause.task, pause.argument, pause.value, pause.held) == ("bill", 1, 7, 1)


async def test_more_than_one_portion_goes_back(app: Ardiq) -> None:
    ran, send, _ = tasks(app)
    await app.pause(send)
    await app.enqueue_many(send.prepare(number) for number in range(2500))
    await drain(app)
    assert (await app.pauses())[0].held == 2500
    await app.resume(send)
    await drain(app)
    assert ran == [("send", number) for number in range(2500)]


@pytest.mark.damages_keys  # workers that are none
async def test_a_resume_wakes_more_workers_than_fit_on_the_stack_of_lua(app: Ardiq) -> None:
    _, send, _ = tasks(app)
    await app.pause()
    await app.enqueue_many(send.prepare(number) for number in range(9_000))
    workers = [part for number in range(9_000) for part in (2**52, f"worker:{number}")]
    app.context.server.core.command(["ZADD", f"{app.context.server.base}workers", *workers])
    assert await app.resume()
    assert app.context.server.core.command(["LLEN", f"{app.context.server.base}wake:default"]) == 9_000


async def test_workers_go_on_with_what_a_dead_client_left(app: Ardiq) -> None:
    ran, send, _ = tasks(app)
    await app.pause(send)
    for number in range(5):
        await send.enqueue(number)
    await drain(app)
    app.context.server.core.call("resume", ["send", "", "", 2, 0])
    assert [pause.resuming for pause in await app.pauses()] == [True]
    app.burst = False
    async with working(app):
        await eventually(lambda: len(ran) == 5)
    assert await app.pauses() == []


async def test_a_held_task_is_aborted_or_expires(app: Ardiq) -> None:
    ran, send, _ = tasks(app)
    await app.pause(send)
    aborted, expired, asked = [await send.options(expire_ms=60_000).enqueue(number) for number in range(3)]
    await drain(app)
    assert await states(aborted, expired, asked) == ["held"] * 3
    assert await aborted.abort()
    assert (await result_of(aborted)).aborted
    assert [pause.held for pause in await app.pauses()] == [2]
    for job in (expired, asked):
        app.context.server.core.command(["HSET", f"ardiq:{{{app.queue_name}}}:task:{job.id}", "expires_at", 1])
    assert (await result_of(asked)).value == "expired"
    assert [pause.held for pause in await app.pauses()] == [1]
    await app.resume(send)
    await drain(app)
    assert (await result_of(expired)).value == "expired"
    assert ran == []


async def test_a_unique_task_stays_unique_while_held(app: Ardiq) -> None:
    _, send, _ = tasks(app)
    await app.pause(send)
    first = await send.options(unique=True).enqueue(1)
    await drain(app)
    assert await send.options(unique=True).enqueue(1) == first
    assert await app.queue_size() == 1


async def test_pause_and_resume_while_workers_run(app: Ardiq, make_app: Callable[..., Ardiq]) -> None:
    ran, send, bill = tasks(app)
    async with working(app):
        jobs = []
        for number in range(20):
            await app.pause(send, argument={"customer": 1})
            jobs += await app.enqueue_many([send.prepare(number % 2), bill.prepare(number, 2)])
            await app.resume(send, argument={"customer": 1})
        async with asyncio.timeout(SOON_S):
            for job in jobs:
                await result_of(job)
    assert len(ran) == 40  # each once
    assert is_sound(app)


async def test_what_cannot_be_paused_is_refused(app: Ardiq, make_app: Callable[..., Ardiq]) -> None:
    _, send, _ = tasks(app)
    for argument, words in (
        ({}, "one argument"),
        ({"customer": 1, "text": "a"}, "one argument"),
        ({"customer": None}, "string, an integer or a boolean"),
        ({"customer": 1.5}, "string, an integer or a boolean"),
        ({"customer": [1]}, "string, an integer or a boolean"),
        ({"custmer": 1}, "'send' does not have a parameter 'custmer'"),
        ({-1: 1}, "position from 0"),
        ({"a b": 1}, "an argument must be given by its parameter"),
    ):
        with pytest.raises(ValueError, match=words):
            await app.pause(send, argument=argument)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no task of this app has a parameter"):
        await app.pause(argument={"custmer": 1})
    with pytest.raises(TypeError, match="task must be"):
        await app.pause("")
    with pytest.raises(BadArgument, match="255 bytes"):
        await app.pause(argument={"customer": "x" * 300})
    assert await app.pauses() == []
    assert not await app.resume(argument={"custmer": 1})
    own = make_app(serializer=lambda value: json.dumps(value).encode(), deserializer=json.loads)
    with pytest.raises(ValueError, match="own serializer"):
        await own.pause(argument={"customer": 1})
    await own.pause("send")


async def test_a_producer_that_knows_no_task_pauses_what_comes_by_keyword(make_app: Callable[..., Ardiq]) -> None:
    worker = make_app()
    ran, send, _ = tasks(worker)
    producer = make_app(queue_name=worker.queue_name)
    await producer.pause("send", argument={"customer": 1})
    await send.enqueue(customer=1)
    await send.enqueue(1)
    await drain(worker)
    assert ran == [("send", 1)]
    await worker.pause("send", argument={"customer": 1})  # and this one knows the position
    await send.enqueue(1)
    await drain(worker)
    assert (await worker.pauses())[0].held == 2


MODULE = """
from ardiq import Ardiq

app = Ardiq({url!r}, "jobs")

@app.task
async def send(customer_id, plan="free"):
    pass
"""


@pytest.fixture
def jobs(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ardiq]:
    (tmp_path / "pause_jobs.py").write_text(MODULE.format(url=server.url))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("pause_jobs", None)
    import pause_jobs  # type: ignore[import-not-found]

    pause_jobs.app.context.server.core.command(["FLUSHALL"])
    yield pause_jobs.app
    pause_jobs.app.context.server.close()


def test_the_command_line(jobs: Ardiq, capsys: pytest.CaptureFixture[str]) -> None:
    def ardiq(command: str, *words: str) -> tuple[int, str]:
        code = main([command, "pause_jobs:app", *words])
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    assert ardiq("pause", "--task", "send", "--arg", "customer_id=42") == (
        0,
        "paused task 'send' with customer_id=42\n",
    )
    assert ardiq("pause", "--arg", 'plan="free"') == (0, 'paused all tasks with plan="free"\n')
    assert ardiq("pause") == (0, "paused queue 'jobs'\n")

    async def enqueue() -> None:
        send = jobs.ref("send")
        await jobs.enqueue_many([send.prepare(42), send.prepare(43), send.prepare(44, "free")])

    asyncio.run(enqueue())
    assert ardiq("resume")[0] == 0
    jobs.burst = True
    asyncio.run(jobs.run())
    code, text = ardiq("status")
    assert code == 0
    assert "2 held by a pause" in text
    assert "send(customer_id=42)  1     20" in text
    assert '*(plan="free")        1     20' in text
    status = json.loads(ardiq("status", "--json")[1])
    assert status["counts"]["held"] == 2
    assert [pause["value"] for pause in status["pauses"]] == [42, "free"]
    assert ardiq("purge", "-y") == (0, "2 removed\n")
    assert ardiq("resume", "--task", "send", "--arg", "customer_id=42")[0] == 0
    code, text = ardiq("resume", "--task", "send")
    assert code == 1
    assert "no such pause: task 'send'" in text
    assert ardiq("pause", "--task", "sned")[0] == 2
    assert ardiq("pause", "--task", "sned", "--unknown") == (0, "paused task 'sned'\n")
    code, text = ardiq("pause", "--arg", "plan=free")
    assert code == 2
    assert "--arg 'plan=\"free\"'" in text
    code, text = ardiq("pause", "--arg", "plan")
    assert code == 2
    assert "is not NAME=JSON" in text
    code, text = ardiq("pause", "--arg", "plam=1")
    assert code == 2
    assert "no task of this app has a parameter 'plam'" in text


def test_a_pause_can_be_made_by_hand(jobs: Ardiq) -> None:
    core = jobs.context.server.core
    core.call("pause", ["*", "0", "42", "{}"])
    core.command(["HSET", "ardiq:{jobs}:pauses", "nonsense", "{", "more", '{"argument": "a"}'])
    assert [pause.id for pause in asyncio.run(jobs.pauses())] == ["more", "nonsense", "*(0=42)"]
    assert core.command(["HGET", "ardiq:{jobs}:meta", "paused"]) == b"tasks"


async def test_the_blocking_twins(app: Ardiq) -> None:
    ran, send, _ = tasks(app)
    app.pause_sync(send)
    await asyncio.to_thread(app.pause_sync, argument={"customer": 42})
    with pytest.raises(ValueError, match="does not have a parameter 'other'"):
        app.pause_sync(send, argument={"other": 1})
    assert [pause.id for pause in app.pauses_sync()] == [pause.id for pause in await app.pauses()]
    assert {(pause.task, pause.argument, pause.value) for pause in app.pauses_sync()} == {
        ("send", None, None),
        (None, "customer", 42),
    }
    jobs = await app.enqueue_many(send.prepare(number) for number in range(1500))  # more than one call gives back
    async with working(app):
        await eventually(lambda: app.pauses_sync()[0].held + app.pauses_sync()[1].held == 1500)
        assert app.resume_sync(send)
        assert not app.resume_sync(send)
        assert app.resume_sync(argument={"customer": 42})
        assert app.pauses_sync() == []
        for job in jobs:
            await result_of(job)
    assert len(ran) == 1500
    assert is_sound(app)
