"""`durability="replicated"`: a task counts as accepted when a replica has it."""

from collections.abc import Callable, Iterator

import pytest
from helpers import awaited, drain, is_state, result_of
from topologies import Sentinels, sentinel

from ardiq import Ardiq, BrokerError


@pytest.fixture(scope="module")
def servers() -> Iterator[Sentinels]:
    # Nobody fails over here: the replica is frozen at times.
    with sentinel(replicas=1, sentinels=1, down_after_ms=60_000) as servers:
        yield servers


@pytest.fixture
def make_app(servers: Sentinels, make_app: Callable[..., Ardiq]) -> Callable[..., Ardiq]:
    def make(**options: object) -> Ardiq:
        return make_app(**{"redis_url": servers.primary().url, "durability": "replicated", **options})

    return make


async def test_what_is_accepted_is_on_a_replica(servers: Sentinels, make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    replica = servers.replicas()[0]

    @app.task
    async def work(number: int) -> int:
        return number

    for number in range(20):
        job = await work.enqueue(number)
        assert replica.command("EXISTS", f"ardiq:{{{app.queue_name}}}:task:{job.id}") == 1
    jobs = await app.enqueue_many(work.prepare(number) for number in range(600))
    assert replica.command("LLEN", f"ardiq:{{{app.queue_name}}}:ready:default") == 620
    assert work.enqueue_sync(1).id
    await drain(app)
    assert (await result_of(jobs[-1])).value == 599


async def test_without_a_replica_in_time_nothing_counts_as_accepted(
    servers: Sentinels, make_app: Callable[..., Ardiq]
) -> None:
    app = make_app(broker_timeout_ms=1000)
    usual = make_app(queue_name=app.queue_name, durability="primary")
    work = app.ref("work")
    await work.enqueue(0)
    replica = servers.replicas()[0]
    replica.freeze()
    try:
        for call in (
            lambda: work.enqueue(1),
            lambda: work.options(task_id="mine").enqueue(1),
            # It is there already, and no replica has it.
            lambda: work.options(task_id="mine").enqueue(1),
            lambda: app.enqueue_many([work.prepare(1)]),
            lambda: app.schedules.put("later", "work", every=3600),
        ):
            with pytest.raises(BrokerError, match=r"no replica confirmed it within \d+ ms") as refused:
                await call()
            assert refused.value.maybe_enqueued
        for send in (work.enqueue, work.enqueue_sync, lambda: app.enqueue_many([work.prepare()])):
            with pytest.raises(BrokerError, match="no replica confirmed") as refused:
                await awaited(send)
            (job,) = refused.value.unsure
            assert str(refused.value).startswith(f"task {job.id} of queue {app.queue_name!r}: carried out")
            assert await is_state(app, job.id, "queued")
        for many in (app.enqueue_many, app.enqueue_many_sync):
            with pytest.raises(BrokerError, match="no replica confirmed") as refused:
                await awaited(many, [work.options(task_id=f"{many.__name__}{n}").prepare() for n in range(5)])
            first = ", ".join(f"{many.__name__}{n}" for n in range(3))
            assert str(refused.value).startswith(f"tasks {first} and 2 more of queue {app.queue_name!r}: carried out")
            assert [job.id for job in refused.value.unsure] == [f"{many.__name__}{n}" for n in range(5)]
            assert not refused.value.jobs
        # Others are not held up by it, nor is what need not be durable.
        await usual.ref("work").enqueue(2)
        assert await app.queue_size() == 18
    finally:
        replica.thaw()
    await work.options(task_id="mine").enqueue(1)


async def test_a_dead_letter_runs_again_on_a_replica_too(servers: Sentinels, make_app: Callable[..., Ardiq]) -> None:
    app = make_app(broker_timeout_ms=1000)

    @app.task(max_retries=0)
    async def work() -> None:
        raise ValueError("no")

    job = await work.enqueue()
    await drain(app)
    replica = servers.replicas()[0]
    replica.freeze()
    try:
        with pytest.raises(BrokerError, match="no replica confirmed"):
            await app.replay(job.id)
    finally:
        replica.thaw()


async def test_a_lost_reply_is_asked_for_again(servers: Sentinels, make_app: Callable[..., Ardiq]) -> None:
    app = make_app()
    work = app.ref("work")
    for number in range(30):
        sent = work.enqueue(number)
        if number % 3 == 0:
            servers.primary().command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await sent
    assert await app.queue_size() == 30


def test_another_durability_is_refused(make_app: Callable[..., Ardiq]) -> None:
    with pytest.raises(ValueError, match="durability must be 'primary' or 'replicated', not 'eternal'"):
        make_app(durability="eternal")
