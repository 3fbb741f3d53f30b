"""With a `signing_key` a task gets no result of a step and no signal that nobody signed, and tokens can be redeemed."""

from collections.abc import Callable
from typing import Any

import pytest
from helpers import drain, eventually, field, result_of, working

from ardiq import Ardiq, BadSignature, Retry, Signal, step, wait_for

KEY, NEW_KEY = "first-secret-of-32-bytes-or-more", "second-secret-of-32-bytes-or-more"
approval = Signal("approval", bool)


class Order:
    """A task with a step and a wait, whose kept values can be written by hand."""

    def __init__(self, app: Ardiq) -> None:
        self.app = app
        self.got: list[Any] = []
        self.between: list[Callable[[], Any]] = []

        @app.task(backoff_ms=1)
        async def order() -> str:
            price = await step("price", lambda: 5)
            self.got.append(price)
            if self.between:
                self.between.pop()()
                raise Retry(delay=0)
            return f"{price} {await wait_for(approval)}"

        self.task = order

    def key(self, kind: str, task_id: str) -> str:
        return f"ardiq:{{{self.app.queue_name}}}:{kind}:{task_id}"

    def read(self, task_id: str, name: str) -> bytes:
        found: bytes = self.app.context.server.core.command(["HGET", self.key("steps", task_id), name])
        return found

    def write(self, task_id: str, name: str, text: bytes) -> None:
        self.app.context.server.core.command(["HSET", self.key("steps", task_id), name, text])


@pytest.fixture
def order(make_app: Callable[..., Ardiq]) -> Order:
    return Order(make_app(signing_key=KEY))


async def waiting(order: Order) -> Any:
    job = await order.task.enqueue()
    await eventually(lambda: field(order.app, job.id, "waits_for"))
    return job


async def test_what_is_kept_is_signed(order: Order) -> None:
    async with working(order.app):
        job = await waiting(order)
        assert order.read(job.id, "price").startswith(b"step json;signed=")
        await job.signal(approval, True)
        assert (await result_of(job)).value == "5 True"
    assert order.got == [5, 5]


@pytest.mark.parametrize(
    "text", [b"step  1000", b"step json;signed=AAAAAAAAAAAAAAAAAAAAAA 1000", b"step json;signed= 1"]
)
async def test_a_step_that_was_written_by_hand(order: Order, text: bytes) -> None:
    async with working(order.app):
        job = await waiting(order)
        order.write(job.id, "price", text)
        await job.signal(approval, True)
        result = await result_of(job)
    assert (result.success, order.got) == (False, [5])
    assert f"the result of step 'price' of task 'order' (id {job.id})" in str(result.value)
    assert "BadSignature(" in str(result.value)


async def test_a_value_of_another_task_or_place(order: Order) -> None:
    async with working(order.app):
        first, second = await waiting(order), await waiting(order)
        order.write(second.id, "price", order.read(first.id, "price"))
        await second.signal(approval, True)
        assert "was signed with another key, for something else" in str((await result_of(second)).value)
        price = order.read(first.id, "price").removeprefix(b"step ")
        order.write(first.id, "wait_for:approval", b"signal:approval " + price)
        assert await first.abort()


async def test_a_value_of_another_step(make_app: Callable[..., Ardiq]) -> None:
    order = Order(make_app(signing_key=KEY))

    @order.app.task
    async def both() -> list[int]:
        found = [await step("price", lambda: 5), await step("fee", lambda: 1)]
        await wait_for(approval)
        return found

    async with working(order.app):
        job = await both.enqueue()
        await eventually(lambda: field(order.app, job.id, "waits_for"))
        order.write(job.id, "price", order.read(job.id, "fee"))
        await job.signal(approval, True)
        assert "the result of step 'price'" in str((await result_of(job)).value)


async def test_a_signal_that_nobody_signed(order: Order, make_app: Callable[..., Ardiq]) -> None:
    async with working(order.app):
        job = await waiting(order)
        stranger = make_app(queue_name=order.app.queue_name)
        await stranger.signal(job.id, approval, True)
        error = str((await result_of(job)).value)
    assert f"signal 'approval', for wait_for 'wait_for:approval' of task 'order' (id {job.id}), has no sign" in error
    assert await order.app.dead_count() == 1


async def test_keys_in_turn(make_app: Callable[..., Ardiq]) -> None:
    order = Order(make_app(signing_key=[NEW_KEY, KEY]))
    async with working(order.app):
        old = make_app(queue_name=order.app.queue_name, signing_key=KEY)
        job = await waiting(order)
        await old.signal(job.id, approval, True)
        assert (await result_of(job)).value == "5 True"


async def test_unsigned_ones_are_taken_while_a_key_is_introduced(make_app: Callable[..., Ardiq]) -> None:
    order = Order(make_app(signing_key=KEY, takes_unsigned=True))
    async with working(order.app):
        job = await waiting(order)
        order.write(job.id, "price", b"step  7")
        await make_app(queue_name=order.app.queue_name).signal(job.id, approval, True)
        assert (await result_of(job)).value == "7 True"


async def test_an_app_without_a_key_reads_signed_values(make_app: Callable[..., Ardiq]) -> None:
    order = Order(make_app())
    async with working(order.app):
        job = await waiting(order)
        await make_app(queue_name=order.app.queue_name, signing_key=KEY).signal(job.id, approval, True)
        assert (await result_of(job)).value == "5 True"


async def test_a_token_is_good_for_one_signal(order: Order) -> None:
    app = order.app

    @app.task
    async def twice() -> list[bool | None]:
        return [await wait_for(approval), await wait_for(approval, timeout=0)]

    job = await twice.enqueue()
    token = app.token(job.id, approval)
    assert token != app.token(job.id, "approval")
    await app.redeem(token, True)
    app.redeem_sync(token, True)
    async with working(app):
        assert (await result_of(job)).value == [True, None]
    with pytest.raises(LookupError, match="has ended"):
        await app.redeem(token, True)


async def test_what_is_no_token(order: Order, make_app: Callable[..., Ardiq]) -> None:
    app = order.app
    token = app.token("ID", approval)
    other = make_app(signing_key=NEW_KEY, queue_name=app.queue_name)
    for wrong in (
        token[:-1],
        f"x{token}",
        "nothing",
        ".",
        other.token("ID", approval),
        app.queue("q").token("ID", "a"),
    ):
        with pytest.raises(
            BadSignature, match=f"was not made by this app for queue '{app.queue_name}', or was changed"
        ):
            await app.redeem(wrong, True)
    for call in (lambda: make_app().token("ID", approval), lambda: make_app().redeem_sync(token, True)):
        with pytest.raises(RuntimeError, match="tokens need a key: give the app a signing_key"):
            call()


async def test_signatures_survive_a_retry(order: Order) -> None:
    order.between.append(lambda: None)
    job = await order.task.enqueue()
    await job.signal(approval, False)
    await drain(order.app)
    assert (await result_of(job)).value == "5 False"
    assert order.got == [5, 5]
