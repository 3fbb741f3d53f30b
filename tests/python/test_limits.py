"""Limits on a real server: never exceeded over all workers, in order by key, changed at run time, declared again."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from helpers import SOON_S, drain, eventually, field, is_sound, is_state, result_of, working

from ardiq import Ardiq, Job, Limit, NoLimit, QueueFull, Rate, Retry, Snooze
from ardiq.embedded import Server
from ardiq.errors import BadArgument


class Bodies:
    """What the bodies of tasks saw: which ran when beside which."""

    def __init__(self) -> None:
        self.running: dict[Any, int] = defaultdict(int)
        self.most: dict[Any, int] = defaultdict(int)
        self.order: dict[Any, list[Any]] = defaultdict(list)

    async def run(self, *keys: Any, number: int = 0) -> None:
        """Stay a moment in the body of a task of these keys."""
        for key in keys:
            self.running[key] += 1
            self.most[key] = max(self.most[key], self.running[key])
            self.order[key].append(number)
        await asyncio.sleep(0.002)
        for key in keys:
            self.running[key] -= 1


async def ended(*jobs: Job) -> None:
    for job in jobs:
        await result_of(job)


def buckets_of(app: Ardiq, job: Job) -> str | None:
    return field(app, job.id, "buckets")


async def blocked(app: Ardiq, release: asyncio.Event) -> tuple[Any, list[int]]:
    """A task of which one runs at a time, until it is released, and the numbers of those that began."""
    began: list[int] = []

    @app.task(limits=Limit("one", concurrency=1))
    async def work(number: int) -> None:
        began.append(number)
        await release.wait()

    return work, began


async def test_a_limit_holds_by_key_over_two_workers_and_each_key_keeps_its_order(
    make_app: Callable[..., Ardiq],
) -> None:
    one = make_app()
    two = make_app(queue_name=one.queue_name)
    bodies = Bodies()

    async def work(account: str, number: int) -> None:
        await bodies.run(account, number=number)

    tasks = [app.task(limits=Limit("account", key="account", concurrency=1))(work) for app in (one, two)]
    jobs = await one.enqueue_many(tasks[0].prepare(f"a{n % 7}", n) for n in range(140))
    async with working(one), working(two):
        await ended(*jobs)
    assert set(bodies.most.values()) == {1}
    assert bodies.order == {f"a{key}": list(range(key, 140, 7)) for key in range(7)}
    assert await one.limits.buckets() == []
    assert is_sound(one)


async def test_an_ordered_key_waits_for_a_task_that_runs_again(app: Ardiq) -> None:
    ran: list[tuple[str, int]] = []

    @app.task(limits=Limit(key="account", concurrency=1, ordered=True), max_retries=3)
    async def post(account: str, number: int) -> None:
        ran.append((account, number))
        if number == 0 and ran.count((account, 0)) <= 2:
            raise Retry(delay_ms=50) if account == "retried" else Snooze(0.05)

    jobs = await app.enqueue_many(post.prepare(account, n) for n in range(3) for account in ("retried", "snoozed"))
    async with working(app):
        await ended(*jobs)
    for account in ("retried", "snoozed"):
        assert [number for name, number in ran if name == account] == [0, 0, 0, 1, 2]


async def test_a_line_takes_no_more_than_may_wait(app: Ardiq) -> None:
    @app.task(limits=Limit("partner", key="of", concurrency=1, max_waiting=2))
    async def call(of: str) -> None: ...

    one, two, other = await call.enqueue("a"), call.enqueue_sync("a"), await call.enqueue("b")
    with pytest.raises(QueueFull, match=r"2 tasks wait for partner\(a\), as many as may"):
        await call.enqueue("a")
    with pytest.raises(QueueFull):
        call.enqueue_sync("a")
    with pytest.raises(QueueFull) as refused:
        await app.enqueue_many(call.prepare(of) for of in ("a", "b"))
    assert str(refused.value).startswith("not enqueued: 2 tasks wait for partner(a), as many as may")
    assert str(refused.value).endswith("(1 of 2 calls: `jobs` of this error has those that were enqueued)")
    later = await call.options(delay=3600).enqueue("a")
    async with working(app):
        await ended(one, two, other, *refused.value.jobs)
        await ended(await call.enqueue("a"))
        assert await later.abort()


async def test_tasks_share_a_limit_and_have_others_beside(app: Ardiq) -> None:
    bodies = Bodies()
    partner = app.limit("partner", concurrency=3)

    @app.task(limits=[partner, Limit("customer", key="customer", concurrency=2)])
    async def sync(customer: int) -> None:
        await bodies.run("partner", customer)

    @app.task(limits=partner)
    async def report() -> None:
        await bodies.run("partner")

    jobs = await app.enqueue_many([sync.prepare(n % 2) for n in range(40)] + [report.prepare() for _ in range(20)])
    async with working(app):
        await ended(*jobs)
    assert all(bodies.most[key] <= most for key, most in {"partner": 3, 0: 2, 1: 2}.items())
    assert len(bodies.order["partner"]) == 60
    assert is_sound(app)


async def test_a_rate_is_not_exceeded(app: Ardiq) -> None:
    starts: list[float] = []

    @app.task(limits=Limit(rate=Rate(1, per=0.1, burst=2)))
    async def call() -> None:
        starts.append(asyncio.get_running_loop().time())

    async with working(app):
        began = asyncio.get_running_loop().time()
        await ended(*await app.enqueue_many(call.prepare() for _ in range(6)))
    # Of six starts two are the burst, and each of the others waits for its tenth of a second. The first may be late.
    assert starts[-1] - began > 0.39


async def test_a_task_that_waits_is_limited_and_says_for_what(app: Ardiq) -> None:
    release = asyncio.Event()
    work, began = await blocked(app, release)
    async with working(app):
        first = await work.enqueue(1)
        await eventually(lambda: began)
        second = await work.enqueue(2)
        assert await second.status() == "limited"
        info = await second.info()
        assert info is not None
        assert (info.status, info.args) == ("limited", (2,))
        assert buckets_of(app, second) == "one"
        counts = await app.inspect.counts()
        assert (counts.queued, counts.limited, counts.running, counts.lines) == (0, 1, 1, {"default": 1})
        assert await app.queue_size() == 2
        [lane] = await app.inspect.lanes()
        assert (lane.waiting, lane.limited) == (0, 1)
        assert lane.oldest_ms is not None
        position = await app.inspect.position(second.id)
        assert position is not None
        assert position[:4] == ("limited", "default:one", 0, 1)
        [limit] = await app.limits.list()
        assert (limit.name, limit.concurrency, limit.running, limit.waiting) == ("one", 1, 1, 1)
        release.set()
        await ended(first, second)
    assert began == [1, 2]


async def test_what_is_put_counts_at_once(app: Ardiq) -> None:
    release = asyncio.Event()
    work, began = await blocked(app, release)
    async with working(app):
        jobs = [await work.enqueue(number) for number in range(4)]
        await eventually(lambda: began == [0])
        await app.limits.put("one", concurrency=3)
        await eventually(lambda: began == [0, 1, 2])
        shown = await app.limits.show("one")
        assert shown is not None
        assert (shown.concurrency, shown.overridden, shown.running) == (3, True, 3)
        assert await app.limits.remove("one")
        shown = await app.limits.show("one")
        assert shown is not None
        assert (shown.concurrency, shown.overridden, shown.running) == (1, False, 3)  # what runs goes on
        release.set()
        await ended(*jobs)


async def test_a_faster_rate_counts_at_once_for_each_key(app: Ardiq) -> None:
    @app.task(limits=Limit("partner", key="of", rate=Rate(1, per=3600)))
    async def call(of: str) -> None: ...

    jobs = [await call.enqueue(of) for of in ("a", "b", "a", "b")]
    async with working(app):
        await ended(*jobs[:2])
        await app.limits.put("partner", rate=Rate(100, per=1))
        await ended(*jobs[2:])


async def test_a_closed_limit_starts_nothing_until_it_opens(app: Ardiq) -> None:
    release = asyncio.Event()
    release.set()
    work, began = await blocked(app, release)
    await app.limits.put("one", concurrency=0)
    async with working(app):
        job = await work.enqueue(1)
        plain = await app.ref("elsewhere").enqueue()
        await eventually(lambda: is_state(app, plain.id, "scheduled"))  # a worker looked at the lane
        assert await job.status() == "limited"
        assert began == []
        assert await app.limits.remove("one")
        await ended(job)


async def test_how_many_may_wait_is_put_for_a_limit_and_for_a_key(app: Ardiq) -> None:
    @app.task(limits=Limit("partner", key="of", concurrency=1, max_waiting=3))
    async def call(of: str) -> None: ...

    await call.enqueue("a")
    await app.limits.put("partner", max_waiting=1)
    await app.limits.put("partner(b)", max_waiting=2)
    found = [(limit.key, limit.max_waiting) for limit in await app.limits.list()]
    assert found == [(None, 1), ("b", 2)]
    shown = await app.limits.show("partner(c)")
    assert shown is not None
    assert shown.max_waiting == 1
    for _ in range(2):
        await call.enqueue("b")
    for of in ("a", "b"):
        with pytest.raises(QueueFull, match=rf"partner\({of}\)"):
            await call.enqueue(of)
    assert await app.limits.remove("partner(b)")
    with pytest.raises(QueueFull, match="1 task waits"):
        await call.enqueue("b")
    assert await app.limits.remove("partner")
    await call.enqueue("a")
    await drain(app)


async def test_one_key_may_differ_from_the_others(app: Ardiq) -> None:
    bodies = Bodies()

    @app.task(limits=Limit("customer", key="customer", concurrency=1))
    async def work(customer: str) -> None:
        await bodies.run(customer)

    jobs = await app.enqueue_many(work.prepare(customer) for _ in range(20) for customer in ("big(1)", "small"))
    await app.limits.put("customer(big(1))", concurrency=3)
    assert [(limit.key, limit.concurrency) for limit in await app.limits.list()] == [(None, 1), ("big(1)", 3)]
    other = await app.limits.show("customer(other)")
    assert other is not None
    assert (other.key, other.concurrency, other.running) == ("other", 1, 0)
    async with working(app):
        await ended(*jobs)
    assert bodies.most["small"] == 1
    assert bodies.most["big(1)"] in (2, 3)
    assert await app.limits.remove("customer(big(1))")
    assert not await app.limits.remove("customer(big(1))")


async def test_the_worker_that_starts_last_declares_what_counts(make_app: Callable[..., Ardiq]) -> None:
    old = make_app()
    new = make_app(queue_name=old.queue_name)
    for app, concurrency in ((old, 1), (new, 5)):

        @app.task(name="work", limits=Limit("shared", concurrency=concurrency))
        async def work() -> None: ...

        async with working(app):
            await eventually(lambda concurrency=concurrency: declares(old, concurrency))


async def test_a_worker_declares_on_each_queue_that_it_serves(app: Ardiq) -> None:
    other = app.queue(f"{app.queue_name}-other")

    @app.task(limits=Limit("shared", concurrency=3))
    async def work() -> None: ...

    run = asyncio.create_task(app.run([app.queue_name, other.queue_name]))
    try:
        await eventually(lambda: declares(app, 3))
        await eventually(lambda: declares(other, 3))
    finally:
        app.stop()
        await run


async def declares(app: Ardiq, concurrency: int) -> bool:
    return [limit.concurrency for limit in await app.limits.list()] == [concurrency]


Enqueue = Callable[[Any, int], Coroutine[Any, Any, Job]]


async def by_many(work: Any, number: int) -> Job:
    plain, job = await work.app.enqueue_many([work.app.ref("plain").prepare(), work.prepare(number)])
    assert await plain.status() in ("queued", "not_found")
    return job  # type: ignore[no-any-return]


WAYS: dict[str, Enqueue] = {
    "enqueue": lambda work, number: work.enqueue(number),
    "ref": lambda work, number: work.app.send(work.name, number),
    "delayed": lambda work, number: work.options(delay_ms=1).enqueue(number),
    "enqueue_sync": lambda work, number: asyncio.to_thread(work.enqueue_sync, number),
    "enqueue_many": by_many,
    "enqueue_many_sync": lambda work, number: asyncio.to_thread(
        lambda: work.app.enqueue_many_sync([work.app.ref("plain").prepare(), work.prepare(number)])[1]
    ),
}


@pytest.mark.parametrize("way", WAYS)
async def test_whoever_enqueues_first_declares(way: str, app: Ardiq) -> None:
    """Also after the server has lost its data."""

    @app.task(limits=Limit("customer", key="number", concurrency=1))
    async def work(number: int) -> None: ...

    for _ in range(2):
        job = await WAYS[way](work, 7)
        assert buckets_of(app, job) == "customer(7)"
        app.context.server.core.command(["DEL", f"ardiq:{{{app.queue_name}}}:limits"])


async def test_a_request_declares_too(app: Ardiq) -> None:
    @app.task(limits=Limit("one", concurrency=1))
    async def double(number: int) -> int:
        return 2 * number

    async with working(app):
        assert await double.request(2, timeout=SOON_S) == 4
        app.context.server.core.command(["DEL", f"ardiq:{{{app.queue_name}}}:limits"])
        assert await double.request(3, timeout=SOON_S) == 6


async def test_a_limit_that_cannot_be_declared_is_named(app: Ardiq) -> None:
    task = app.ref("elsewhere", limits=Limit("partner", concurrency=1))
    app.context.registry.limits.clear()
    for enqueue in (task.enqueue(), app.enqueue_many([task.prepare()])):
        with pytest.raises(NoLimit, match="limit partner is not declared in this queue"):
            await enqueue
    assert await app.queue_size() == 0


async def test_of_a_batch_all_that_the_server_took_is_known(app: Ardiq) -> None:
    @app.task(limits=Limit("customer", key="number", concurrency=1))
    async def work(number: int) -> None: ...

    limits = dict(app.context.registry.limits)
    app.context.registry.limits.clear()
    calls = [work.prepare(1), app.ref("plain").prepare(), work.prepare(2)]
    with pytest.raises(NoLimit) as refused:
        await app.enqueue_many(calls)
    assert [await job.status() for job in refused.value.jobs] == ["queued"]
    app.context.registry.limits |= limits
    assert [await job.status() for job in await app.enqueue_many(calls)] == ["limited", "queued", "limited"]


async def test_a_plain_task_beside_does_not_mind(app: Ardiq) -> None:
    """What is enqueued in one turn leaves in one call, of which the server refuses what it must."""

    @app.task(limits=Limit("one", concurrency=1))
    async def work() -> None: ...

    plain = app.ref("plain")
    jobs = await asyncio.gather(plain.enqueue(), work.enqueue(), plain.enqueue())
    assert [await job.status() for job in jobs] == ["queued", "limited", "queued"]


async def test_schedules_are_limited_as_their_tasks_are(app: Ardiq) -> None:
    release = asyncio.Event()
    _, began = await blocked(app, release)
    ticks: list[int] = []

    @app.cron(every=0.05, limits=Limit("ticks", concurrency=1))
    async def tick() -> None:
        ticks.append(1)

    await app.schedules.put("by hand", "work", every=0.05, args=[7])
    async with working(app):
        await eventually(lambda: began == [7] and len(ticks) > 2)
        waiting = await eventually(lambda: app.limits.buckets("one"))
        assert (waiting[0].name, waiting[0].running) == ("one", 1)
        await app.schedules.remove("by hand")
        release.set()
        await eventually(lambda: has_none(app, "one"))
    await app.schedules.remove("tick")
    await drain(app)


async def has_none(app: Ardiq, limit: str) -> bool:
    return await app.limits.buckets(limit) == []


@pytest.mark.parametrize(
    ("limit", "options", "kind", "says"),
    [
        ("partner", {}, ValueError, "give a concurrency, a rate, max_waiting or adaptive for limit 'partner'"),
        ("partner", {"concurrency": -1}, ValueError, "the concurrency of limit 'partner' must be at least 0, not -1"),
        ("partner", {"concurrency": 10**30}, ValueError, "the concurrency of limit 'partner' must be at most"),
        ("partner", {"concurrency": "5"}, TypeError, "the concurrency of limit 'partner' must be an int, not str"),
        ("partner", {"rate": 5}, TypeError, "the rate of limit 'partner' must be a Rate"),
        ("partner", {"max_waiting": 0}, ValueError, "max_waiting of limit 'partner' must be at least 1, not 0"),
        ("partner", {"max_waiting": 1.5}, TypeError, "max_waiting of limit 'partner' must be an int, not float"),
        ("partner", {"adaptive": -1}, ValueError, "adaptive of limit 'partner' must be at least 1 ms, not -1"),
        (
            "partner",
            {"adaptive": "5m"},
            TypeError,
            "adaptive of limit 'partner' must be a timedelta or seconds, not str",
        ),
        ("", {"concurrency": 1}, ValueError, "the name of a limit must not be empty"),
        ("a:b", {"concurrency": 1}, ValueError, "not 'a:b'"),
        ("customer(42", {"concurrency": 1}, ValueError, "does not end with ')'"),
        ("customer()", {"concurrency": 1}, ValueError, "the key of limit 'customer' is empty"),
        (f"customer({'k' * 257})", {"concurrency": 1}, ValueError, "must have at most 256 bytes"),
        (42, {"concurrency": 1}, TypeError, "give a limit, or a name such as"),
    ],
)
async def test_what_cannot_be_put_is_refused(
    limit: Any, options: dict[str, Any], kind: type[Exception], says: str, app: Ardiq
) -> None:
    with pytest.raises(kind) as refused:
        await app.limits.put(limit, **options)
    assert says in str(refused.value)
    with pytest.raises(kind):
        app.limits.put_sync(limit, **options)
    assert await app.limits.list() == []


async def test_an_ordered_limit_is_not_widened(app: Ardiq) -> None:
    @app.task(limits=Limit("account", key="account", concurrency=1, ordered=True))
    async def post(account: str) -> None: ...

    job = await post.enqueue("A-7")
    for name in ("account", "account(A-7)"):
        with pytest.raises(BadArgument, match=r"limit account.* is ordered, which belongs to a concurrency of 1"):
            await app.limits.put(name, concurrency=2)
        await app.limits.put(name, concurrency=0)
        assert await app.limits.remove(name)
    async with working(app):
        await ended(job)


async def test_the_server_refuses_a_cost_above_the_burst_that_was_put(app: Ardiq) -> None:
    @app.task(limits=Limit("partner", rate=Rate(10, per=1, burst=5), cost=5))
    async def work() -> None: ...

    await app.limits.put("partner", rate=Rate(10, per=1, burst=4))
    with pytest.raises(BadArgument, match="partner"):
        await work.enqueue()


def test_limits_are_asked_for_without_a_loop(app: Ardiq) -> None:
    app.limits.put_sync("partner", concurrency=2)
    [limit] = app.limits.list_sync()
    assert app.limits.show_sync("partner") == limit
    assert app.limits.show_sync("other") is None
    assert (limit.name, limit.key, limit.concurrency, limit.rate) == ("partner", None, 2, None)
    assert app.limits.buckets_sync() == []
    assert app.limits.remove_sync("partner")
    assert not app.limits.remove_sync("partner")


async def test_a_server_that_lost_everything_is_told_again() -> None:
    with Server() as server:
        app = Ardiq(server.url)

        @app.task(limits=Limit("one", concurrency=1))
        async def work() -> int:
            return 1

        async with working(app):
            assert await work.request(timeout=SOON_S) == 1
            app.context.server.core.command(["FLUSHALL"])
            assert (await result_of(await work.enqueue())).value == 1
        app.context.server.close()


async def test_aborted_tasks_leave_their_line_but_for_the_middle_of_a_long_one(app: Ardiq) -> None:
    @app.task(limits=Limit("one", concurrency=1))
    async def work(number: int) -> None: ...

    jobs = await app.enqueue_many([work.prepare(number) for number in range(2_004)])

    async def waiting() -> int:
        shown = await app.limits.show("one")
        assert shown is not None
        return shown.waiting

    await jobs[0].abort()
    await jobs[-1].abort()
    assert await waiting() == 2_002
    await jobs[1_001].abort()
    assert await waiting() == 2_002, "it is not looked for so deep, and passed over at its turn"
    await jobs[1_000].abort()
    assert await waiting() == 2_001
    core = app.context.server.core
    while core.call("purge", ["limited", "default", 0, 1_000, 0])[1]:
        pass
    assert await waiting() == 0
