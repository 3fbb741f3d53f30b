"""`ardiq.sqlalchemy.enqueue_on_commit`: what a transaction enqueues is on the queue once it is committed."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers import SOON_S, drain, field
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from ardiq import Ardiq, BrokerError, Task
from ardiq.sqlalchemy import enqueue_on_commit
from ardiq.testing import inline


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[str | None]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path}/shop.db")
    # The driver's own idea of when a transaction begins knows no savepoints.
    event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def task(app: Ardiq) -> Task[[str], str]:
    @app.task
    def note(name: str) -> str:
        return name

    return note


def queued(app: Ardiq) -> list[str]:
    """The first arguments of what is on the queue, in order."""
    base = f"ardiq:{{{app.queue_name}}}:"
    ids = app.context.server.core.command(["LRANGE", f"{base}ready:default", 0, -1])
    return [(field(app, task_id.decode(), "args") or "")[2:-2] for task_id in ids]


def test_it_leaves_with_the_commit(app: Ardiq, task: Task[[str], str], engine: Engine) -> None:
    with Session(engine) as session:
        order = Order()
        session.add(order)
        order.job_id = enqueue_on_commit(session, task.prepare("a")).id
        enqueue_on_commit(session, task.options(delay_ms=0).prepare("b"))
        session.flush()
        assert queued(app) == []
        session.commit()
        assert queued(app) == ["a", "b"]
        # And once only.
        session.commit()
        enqueue_on_commit(session, task.prepare("c"))
        session.commit()
        assert queued(app) == ["a", "b", "c"]
    asyncio.run(drain(app))
    with Session(engine) as session:
        job_id = session.scalars(text("SELECT job_id FROM orders")).one()
    result = app.result_sync(job_id, timeout=SOON_S)
    assert result is not None
    assert result.value == "a"


def test_a_rollback_or_a_close_forgets_it(app: Ardiq, task: Task[[str], str], engine: Engine) -> None:
    with Session(engine) as session:
        enqueue_on_commit(session, task.prepare("before anything else"))
        session.rollback()
        session.add(Order())
        session.commit()
        enqueue_on_commit(session, task.prepare("rolled back"))
        session.rollback()
        session.commit()
        enqueue_on_commit(session, task.prepare("closed"))
        session.close()
        session.commit()
        enqueue_on_commit(session, task.prepare("left"))
    with Session(engine) as session, suppress(ZeroDivisionError), session.begin():
        enqueue_on_commit(session, task.prepare("raised"))
        raise ZeroDivisionError
    assert queued(app) == []


def test_a_flush_that_fails(app: Ardiq, task: Task[[str], str], engine: Engine) -> None:
    with Session(engine) as session:
        session.add(Order(id=1))
        session.commit()
        session.expunge_all()
        enqueue_on_commit(session, task.prepare("no"))
        session.add(Order(id=1))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        session.commit()
        assert queued(app) == []


def test_savepoints(app: Ardiq, task: Task[[str], str], engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        enqueue_on_commit(session, task.prepare("outer"))
        with session.begin_nested():
            enqueue_on_commit(session, task.prepare("released"))
            with session.begin_nested():
                enqueue_on_commit(session, task.prepare("released twice"))
            inner = session.begin_nested()
            enqueue_on_commit(session, task.prepare("inner rolled back"))
            inner.rollback()
        with suppress(ZeroDivisionError), session.begin_nested():
            enqueue_on_commit(session, task.prepare("rolled back"))
            with session.begin_nested():
                enqueue_on_commit(session, task.prepare("released into a rollback"))
            raise ZeroDivisionError
        enqueue_on_commit(session, task.prepare("after"))
        assert queued(app) == []
    assert queued(app) == ["outer", "released", "released twice", "after"]


def test_a_commit_within_a_savepoint_commits_all(app: Ardiq, task: Task[[str], str], engine: Engine) -> None:
    with Session(engine) as session:
        enqueue_on_commit(session, task.prepare("outer"))
        session.begin_nested()
        enqueue_on_commit(session, task.prepare("inner"))
        session.commit()
        assert queued(app) == ["outer", "inner"]
        session.begin_nested()
        enqueue_on_commit(session, task.prepare("gone"))
        session.rollback()
        session.commit()
    assert queued(app) == ["outer", "inner"]


def test_a_savepoint_with_a_failed_flush(app: Ardiq, task: Task[[str], str], engine: Engine) -> None:
    with Session(engine) as session, session.begin():
        session.add(Order(id=1))
        session.flush()
        session.expunge_all()
        enqueue_on_commit(session, task.prepare("outer"))
        with suppress(IntegrityError), session.begin_nested():
            enqueue_on_commit(session, task.prepare("no"))
            session.add(Order(id=1))
    assert queued(app) == ["outer"]


def test_several_apps_and_sessions(app: Ardiq, make_app, engine: Engine, task: Task[[str], str]) -> None:
    other = make_app()
    registry = scoped_session(sessionmaker(engine))
    with Session(engine) as session:
        enqueue_on_commit(registry, task.prepare("first"))
        enqueue_on_commit(registry, other.ref("elsewhere").prepare("x"))
        enqueue_on_commit(registry, task.prepare("second"))
        enqueue_on_commit(session, task.prepare("another session's"))
        registry.commit()
        assert (queued(app), queued(other)) == (["first", "second"], ["x"])
    registry.remove()


def test_an_error_of_the_server_is_raised_after_the_commit(engine: Engine) -> None:
    lost = Ardiq("redis://127.0.0.1:1", broker_timeout_ms=50)
    with Session(engine) as session:
        session.add(Order(id=5))
        enqueue_on_commit(session, lost.ref("work").prepare())
        with pytest.raises(BrokerError) as caught:
            session.commit()
        assert "the session is committed" in caught.value.__notes__[0]
        # The session goes on as after any commit.
        assert session.get(Order, 5) is not None
        session.commit()


def test_what_is_wrong_is_said_at_once(app: Ardiq, task: Task[[str], str], engine: Engine) -> None:
    names = ["later changes do not count"]

    @app.task
    def of_list(names: list[str]) -> None: ...

    with Session(engine) as session:
        with pytest.raises(TypeError, match="missing"):
            enqueue_on_commit(session, task.prepare())  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"takes task\.prepare"):
            enqueue_on_commit(session, task)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="priority"):
            enqueue_on_commit(session, task.options(priority="none").prepare("x"))
        with pytest.raises(TypeError, match="session of SQLAlchemy, not Engine"):
            enqueue_on_commit(engine, task.prepare("x"))  # type: ignore[arg-type]
        assert session.get_transaction() is None
        enqueue_on_commit(session, of_list.prepare(names))
        names.append("really")
        with pytest.raises(InvalidRequestError, match="already begun"):
            session.begin()
        session.commit()
    assert queued(app) == ['"later changes do not count"']


async def test_async_sessions(app: Ardiq, task: Task[[str], str], tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/async.db")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with AsyncSession(engine) as session:
        session.add(Order())
        job = enqueue_on_commit(session, task.prepare("a"))
        assert await job.status() == "not_found"
        await session.commit()
        assert await job.status() == "queued"
        enqueue_on_commit(session, task.prepare("rolled back"))
        await session.rollback()
        enqueue_on_commit(session, task.prepare("closed"))
    registry = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
    async with registry() as session, session.begin():
        enqueue_on_commit(registry, task.prepare("b"))
        await session.run_sync(lambda sync: enqueue_on_commit(sync, task.prepare("c")))
    await registry.remove()
    assert queued(app) == ["a", "b", "c"]
    async with inline(app), AsyncSession(engine) as session:
        job = enqueue_on_commit(session, task.prepare("inline"))
        await session.commit()
        result = await job.result()
        assert result is not None
        assert result.value == "inline"
    await engine.dispose()
