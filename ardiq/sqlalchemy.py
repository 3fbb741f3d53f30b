"""SQLAlchemy: tasks that are enqueued when the session is committed."""

from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction, scoped_session

from ._client.answers import Record
from ._client.producer import Producer, held_back
from .errors import ArdiqError
from .job import Job
from .task import PreparedTask

if TYPE_CHECKING:  # it needs greenlet, which those without async sessions may not have
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session

__all__ = ["enqueue_on_commit"]

AnySession: TypeAlias = "Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any]"

_INFO = "ardiq.enqueue_on_commit"


def enqueue_on_commit(session: AnySession, call: PreparedTask) -> Job:
    """Enqueue a call when the session is committed; not at all when it, or the savepoint, is rolled back or closed.

    All tasks of a transaction are sent in one call. If the process dies between the commit and that call, they
    are lost. An error from the server is raised where the session is committed; its data is committed by then.

    Args:
        session: it begins a transaction if it has none, as with any other use. An `AsyncSession` does not block the
            event loop.
        call: from `task.prepare(...)`; checked and serialized now, so later changes to its arguments have no effect.

    Returns:
        Its job, whose id you can store in the same transaction.

    Raises:
        TypeError: the arguments do not fit the function, or one cannot be serialized.
        ValueError: an unknown lane, or more data than `payload_limit`.

    Example:
        ```python
        with Session(engine) as session:
            order = Order(...)
            session.add(order)
            session.flush()
            order.job_id = enqueue_on_commit(session, send_invoice.prepare(order.id)).id
            session.commit()
        ```
    """
    own: Any = session
    if hasattr(own, "registry"):  # scoped: the session of this scope
        own = own()
    sync_session = getattr(own, "sync_session", own)
    if not isinstance(sync_session, Session):
        raise TypeError(f"enqueue_on_commit takes a session of SQLAlchemy, not {type(session).__name__}")
    producer = held_back(call, "enqueue_on_commit").task.context.producer
    record = producer.record_sync(call)
    pending = sync_session.info.get(_INFO)
    if pending is None:
        pending = sync_session.info[_INFO] = _Pending()
        event.listen(sync_session, "after_commit", pending.committed)
        event.listen(sync_session, "after_transaction_end", pending.ended)
    pending.is_async = pending.is_async or sync_session is not own
    where = sync_session.get_nested_transaction() or sync_session.get_transaction() or sync_session.begin()
    pending.calls.append((where, producer, record, call.call_options.wait_s))
    return Job(call.task.app, record[0])


class _Pending:
    """What one session has to enqueue, each call with the innermost transaction that it belongs to."""

    def __init__(self) -> None:
        self.is_async = False
        self.calls: list[tuple[SessionTransaction, Producer, Record, float | None]] = []
        self._due: list[tuple[Producer, Record, float | None]] = []

    def committed(self, session: Session) -> None:
        """Of a savepoint: from now on its calls belong to the transaction around it. Of the outermost: they are due."""
        savepoint = session.get_nested_transaction()
        if savepoint is None:
            self._due += [due for _, *due in self.calls]  # type: ignore[misc]
            self.calls.clear()
            return
        around = savepoint.parent
        assert around is not None
        self.calls = [(around if where is savepoint else where, *call) for where, *call in self.calls]  # type: ignore[misc]

    def ended(self, _: Session, transaction: SessionTransaction) -> None:
        """What is still with a transaction that has ended was not committed. What is due leaves when all is done."""
        self.calls = [call for call in self.calls if call[0] is not transaction]
        if transaction.parent is not None:
            return
        due, self._due = self._due, []
        for producer, calls in groupby(due, key=lambda each: each[0]):
            records, waits_s = zip(*((record, wait_s) for _, record, wait_s in calls), strict=True)
            try:
                if self.is_async:
                    from sqlalchemy.util import await_only

                    await_only(producer.send(records, waits_s=waits_s))
                else:
                    producer.send_sync(records, waits_s=waits_s)
            except ArdiqError as error:
                error.add_note("the session is committed, but its tasks were not enqueued, or not all of them")
                raise
