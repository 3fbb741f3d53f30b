"""Moving what ArdiQ 1.2 left in Redis into this queue: queued, scheduled, dead, results.

What a task becomes is decided in `lua/migrations/from_1_2.lua`, which takes it there and puts it here in one step. Here
its bytes are read and translated: from msgpack, or what the app's serializer made, to the fields of a record.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import _core
from .._values import headers as _headers
from .._values.encodings import from_msgpack, to_json
from .._values.options import CallOptions

if TYPE_CHECKING:
    from .queue import QueueContext

_PAGE = 100
_GLOB = re.compile(r"([*?\[\]\\])")
_ABORTED = "aborted"

# at, id, lane, found, name, args, kwargs, fields
Row = tuple[bytes, bytes, str, bytes, str, bytes, bytes, bytes]


@dataclass
class Found:
    """What is there under 1.2's keys of one queue."""

    queue: str
    queued: dict[str, int] = field(default_factory=dict)
    scheduled: dict[str, int] = field(default_factory=dict)
    dead: int = 0
    results: int = 0
    workers: list[str] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        return sum(self.queued.values()) + sum(self.scheduled.values())

    @property
    def in_all(self) -> int:
        return self.waiting + self.dead + self.results


class Old:
    """One queue as ArdiQ 1.2 keeps it, and the one it is moved to.

    Args:
        queue: where to.
        name: its name in 1.2, which may have had braces.
    """

    def __init__(self, queue: "QueueContext", name: str) -> None:
        self._queue = queue
        self._core = queue.server.core
        self._name = name
        self._base = f"ardiq:{name}:"
        self._sha1 = ""

    def look(self) -> Found:
        """Count what is there; changes nothing."""
        found = Found(self._name)
        for lane in self._names("queues:"):
            if lane.startswith("delayed:"):
                lane = lane.removeprefix("delayed:")
                found.scheduled[lane] = self._ask("ZCARD", f"queues:delayed:{lane}")
            else:
                found.queued[lane] = self._ask("XLEN", f"queues:{lane}")
        found.dead = self._ask("ZCARD", "index:dead")
        found.results = sum(self._command("EXISTS", *keys) for keys in self._result_keys())
        for worker in self._names("health:"):
            told = self._ask("GET", f"health:{worker}")
            if told is not None:
                found.workers.append(_describe(worker, told))
        found.workers.sort()
        return found

    def strange_lanes(self, found: Found) -> list[str]:
        """Lanes with tasks that no worker of the app would take."""
        lanes = {lane for counts in (found.queued, found.scheduled) for lane, count in counts.items() if count}
        return sorted(lanes - set(self._queue.settings.priorities))

    def move(self, left: Callable[[str, str], object]) -> Counter[str]:
        """Move everything that can be had; `left` is told id and reason of what stays because it cannot be read.

        How many tasks came to be in which state, and, under `exists`, `removed`, `expired`, `claimed`, `changed` and
        `unreadable`, how many did not.
        """
        self._sha1 = self._command("SCRIPT", "LOAD", _core.migration("from_1_2")).decode()
        lanes = self._names("queues:")
        moved: Counter[str] = Counter()
        for kind, rows in (
            ("dead", self._dead(left)),
            *(("scheduled", self._scheduled(lane, left)) for lane in lanes if lane.startswith("delayed:")),
            *(("queued", self._queued(lane, left)) for lane in lanes if not lane.startswith("delayed:")),
            ("result", self._results(left)),
        ):
            for page, unreadable in rows:
                moved["unreadable"] += unreadable
                if page:
                    answers = self._take(kind, page)
                    moved.update("result" if kind == "result" and a in _STATES else a for a in answers)
        return +moved

    def _take(self, kind: str, page: list[Row]) -> list[str]:
        words = [word for row in page for word in row]
        key = self._queue.server.base
        answers = self._command(
            "EVALSHA", self._sha1, "1", key, self._base, kind, str(self._queue.settings.result_ttl_ms), *words
        )
        return [answer.decode() for answer in answers]

    # Each gives pages of rows, and how many of a page cannot be read. What stays is passed over.

    def _queued(self, lane: str, left: Callable[[str, str], object]) -> Iterator[tuple[list[Row], int]]:
        after = b"-"
        while entries := self._ask("XRANGE", f"queues:{lane}", after, "+", "COUNT", _PAGE):
            after = b"(" + entries[-1][0]
            places = [(entry, _field(fields, b"task_id")) for entry, fields in entries]
            yield self._waiting(lane, places, left)

    def _scheduled(self, delayed: str, left: Callable[[str, str], object]) -> Iterator[tuple[list[Row], int]]:
        lane = delayed.removeprefix("delayed:")
        for ids in self._index(f"queues:{delayed}", "WITHSCORES"):
            places = list(zip(ids[1::2], ids[::2], strict=True))
            yield self._waiting(lane, places, left)

    def _waiting(
        self, lane: str, places: list[tuple[bytes, bytes]], left: Callable[[str, str], object]
    ) -> tuple[list[Row], int]:
        payloads = self._command("MGET", *[self._key(b"task:data:" + task_id) for _, task_id in places])
        rows: list[Row] = []
        for (at, task_id), payload in zip(places, payloads, strict=True):
            if payload is None:  # 1.2 kept it no longer: nothing can be run
                rows.append((at, task_id, lane, b"", "", b"", b"", b"{}"))
                continue
            if self._is_next_occurrence(at, task_id):
                rows.append((at, task_id, lane, payload, "", b"", b"", b"{}"))
                continue
            try:
                rows.append((at, task_id, lane, payload, *self._call(task_id, payload)))
            except Exception as error:
                left(task_id.decode(errors="replace"), _reason(error))
        return rows, len(places) - len(rows)

    def _is_next_occurrence(self, at: bytes, task_id: bytes) -> bool:
        """Whether it is an occurrence that 1.2 put there in advance: the schedule in the code makes it again."""
        word, _, rest = task_id.decode(errors="replace").partition(":")
        name, _, due_at = rest.rpartition(":")
        return word == "cron" and name in self._queue.crons and due_at.encode() == at

    def _dead(self, left: Callable[[str, str], object]) -> Iterator[tuple[list[Row], int]]:
        for ids in self._index("index:dead", "WITHSCORES"):
            rows: list[Row] = []
            unreadable = 0
            for task_id, failed_at in zip(ids[::2], ids[1::2], strict=True):
                payload, outcome, lane = self._ask("HMGET", b"task:dead:" + task_id, "payload", "result", "priority")
                if payload is None:
                    continue
                try:
                    name, args, kwargs, fields = self._call(task_id, payload)
                    told = self._read(outcome) if outcome is not None else {}
                    fields = to_json({**json.loads(fields), **_times(told), "error": str(told.get("r", ""))})
                    rows.append(
                        (failed_at, task_id, (lane or b"default").decode(), payload, name, args, kwargs, fields)
                    )
                except Exception as error:
                    unreadable += 1
                    left(task_id.decode(errors="replace"), _reason(error))
            yield rows, unreadable

    def _results(self, left: Callable[[str, str], object]) -> Iterator[tuple[list[Row], int]]:
        for ids in self._index("index:results"):
            values = self._command("MGET", *[self._key(b"task:results:" + task_id) for task_id in ids])
            rows: list[Row] = []
            unreadable = 0
            for task_id, outcome in zip(ids, values, strict=True):
                if outcome is None:
                    continue
                try:
                    value, fields = self._outcome(outcome)
                    rows.append((b"", task_id, "", outcome, "", value, b"", fields))
                except Exception as error:
                    unreadable += 1
                    left(task_id.decode(errors="replace"), _reason(error))
            yield rows, unreadable

    def _call(self, task_id: bytes, payload: bytes) -> tuple[str, bytes, bytes, bytes]:
        """Name, arguments, keyword arguments and further fields of the record of one call."""
        told = self._read(payload)
        headers = told.get("h")
        record = self._queue.producer.record(
            self._queue.app.ref(told["f"]),
            tuple(told["a"]),
            told["k"],
            CallOptions(task_id=task_id.decode()),
            extra={"headers": _headers.pack(self._queue.codec, told["f"], headers)} if headers else None,
            is_checked=False,  # what does not fit fails where it runs
        )
        fields = {**json.loads(record[5]), "enqueued_at": str(int(told.get("t", 0)))}
        return record[1], record[3], record[4], to_json(fields)

    def _outcome(self, outcome: bytes) -> tuple[bytes, bytes]:
        """A result, and the other fields of a record that has ended; no task is named in one of 1.2."""
        told = self._read(outcome)
        fields = _times(told)
        if told["s"]:
            value, codec = self._queue.codec.encode_result("", None, told["r"])
            fields |= {"state": "complete"} | ({"result_codec": codec} if codec else {})
            return value, to_json(fields)
        # A failure that is still a dead letter came with that.
        fields |= {"state": "aborted" if told["r"] == _ABORTED else "discarded", "error": str(told["r"])}
        return b"", to_json(fields)

    def _read(self, data: bytes) -> Any:
        codec = self._queue.codec
        return codec.deserializer(data) if codec.deserializer is not None else from_msgpack(data)

    def _index(self, key: str, *words: str) -> Iterator[list[bytes]]:
        """Pages of a sorted set from which members go while it is read."""
        passed = 0
        while True:
            before = self._ask("ZCARD", key)
            page = self._ask("ZRANGE", key, passed, passed + _PAGE - 1, *words)
            if not page:
                return
            yield page
            size = len(page) // (2 if words else 1)
            passed += max(size - max(before - self._ask("ZCARD", key), 0), 0)

    def _result_keys(self) -> Iterator[list[bytes]]:
        """Pages of the keys of results, without those of dead letters, with which they are moved."""
        cursor = b"0"
        while True:
            cursor, pairs = self._ask("ZSCAN", "index:results", cursor, "COUNT", 1000)
            ids = pairs[::2]
            failed_at = self._ask("ZMSCORE", "index:dead", *ids) if ids else []
            alone = [task_id for task_id, at in zip(ids, failed_at, strict=True) if at is None]
            if alone:
                yield [self._key(b"task:results:" + task_id) for task_id in alone]
            if cursor == b"0":
                return

    def _names(self, kind: str) -> list[str]:
        """What stands behind `kind` in the names of keys."""
        start, cursor, found = f"{self._base}{kind}", b"0", set()
        while True:
            pattern = _GLOB.sub(r"\\\1", start) + "*"
            cursor, keys = self._command("SCAN", cursor, "MATCH", pattern, "COUNT", 1000)
            found |= {key.decode(errors="replace").removeprefix(start) for key in keys}
            if cursor == b"0":
                return sorted(found)

    def _key(self, name: bytes) -> bytes:
        return self._base.encode() + name

    def _ask(self, command: str, key: str | bytes, *words: Any) -> Any:
        return self._command(command, self._key(key.encode() if isinstance(key, str) else key), *words)

    def _command(self, *words: Any) -> Any:
        return self._core.command([str(word) if isinstance(word, int) else word for word in words])


_STATES = frozenset({"complete", "aborted", "discarded"})


def _times(told: dict[str, Any]) -> dict[str, str]:
    names = {"t": "tries", "et": "enqueued_at", "st": "started_at", "ft": "finished_at"}
    return {name: str(int(told[key])) for key, name in names.items() if told.get(key)}


def _field(fields: list[bytes], name: bytes) -> bytes:
    return dict(zip(fields[::2], fields[1::2], strict=True)).get(name, b"")


def _describe(worker: str, told: bytes) -> str:
    try:
        info = json.loads(told)
        return f"{info['id']} (process {info['pid']} on {info['host']})"
    except (ValueError, KeyError, TypeError):
        return worker


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
