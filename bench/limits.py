"""What limits cost, beside plain tasks on the same server: full queues take turns in being added to and worked off."""

import random
from collections.abc import Callable
from itertools import count
from statistics import median
from typing import NamedTuple

from bench import played
from bench.measures import Sample, Samples, Setting
from bench.played import Queue, limits
from bench.server import Server

_TURNS = 15
_TURN = 10 * played.AT_ONCE
_AHEAD = 20_000
_WIDE, _TWO = {"concurrency": 1_000_000}, {"concurrency": 2}
_MANY = 1_000_000


class Kind(NamedTuple):
    """The tasks of a queue: the options of the n-th one, and what their limit is."""

    name: str
    options: Callable[[int], str] = lambda number: ""
    definition: dict[str, int] | None = None


def _keys(name: str, keys: int, definition: dict[str, int]) -> Kind:
    return Kind(name, lambda number: limits(("limit", str(number % keys))), definition)


_PLAIN, _EARLIER = Kind("plain"), Kind("earlier")
_FEW_KEYS = (
    _PLAIN,
    Kind("one", lambda number: limits(("limit", None)), _WIDE),
    _keys("keys_1000", 1_000, _WIDE),
    _keys("keys_1000_of_2", 1_000, _TWO),
    _keys("key_each", 1_000_000_000, _TWO),
)


def _many_keys(keys: int) -> tuple[Kind, ...]:
    return (_PLAIN, _keys("keys_100000", keys, _WIDE), _keys("keys_100000_of_2", keys, _TWO))


class Contest:
    """Full queues, one for each kind of tasks, on a server of their own."""

    def __init__(self, server: Server, kinds: tuple[Kind, ...], ahead: int, earlier: str | None) -> None:
        self._server = server
        self._queues: list[tuple[Kind, Queue, count[int]]] = []
        if _EARLIER in kinds:
            played.load_earlier(server.url, earlier)
        for kind in kinds:
            queue = Queue(server.url, kind.name, earlier=kind is _EARLIER)
            if kind.definition:
                queue.declare("limit", **kind.definition)
            self._queues.append((kind, queue, count()))
            self._add(kind, queue, self._queues[-1][2], ahead)

    def _add(self, kind: Kind, queue: Queue, numbers: "count[int]", tasks: int) -> int:
        return queue.enqueue([kind.options(number) for number, _ in zip(numbers, range(tasks), strict=False)])

    def turns(self) -> dict[str, tuple[float, float]]:
        """By kind: µs of the server's CPU that a task takes to be added, and to be claimed and settled."""
        taken: dict[str, list[tuple[float, float]]] = {kind.name: [] for kind, _, _ in self._queues}
        for _ in range(_TURNS):
            # Each pays a part of what the one before has left to be collected: not always the same one.
            for kind, queue, numbers in random.sample(self._queues, len(self._queues)):
                before = self._server.cpu_us()
                added = self._add(kind, queue, numbers, _TURN)
                between = self._server.cpu_us()
                done = queue.work(_TURN)
                taken[kind.name].append(((between - before) / added, (self._server.cpu_us() - between) / done))
        return {name: (median(one for one, _ in of), median(other for _, other in of)) for name, of in taken.items()}


def no_limits(setting: Setting) -> Samples:
    """Plain tasks beside those of an earlier library, and no others: what those leave to be collected would blur it."""
    return _figures(setting, "none", (_PLAIN, _EARLIER), _AHEAD)


def few_keys(setting: Setting) -> Samples:
    """One limit, a thousand keys, and a key for each task."""
    return _figures(setting, "few", _FEW_KEYS, _AHEAD)


def many_keys(setting: Setting) -> Samples:
    """A hundred thousand keys, all of which wait."""
    keys = 10_000 if setting.quick else 100_000
    return _figures(setting, "many", _many_keys(keys), 4 * keys)


def _figures(setting: Setting, name: str, kinds: tuple[Kind, ...], ahead: int) -> Samples:
    contest = setting.contests.get(name)
    if contest is None:
        contest = Contest(setting.kept.enter_context(setting.start_server()), kinds, ahead, setting.earlier)
        setting.contests[name] = contest
    figures = contest.turns()
    plain = figures.pop("plain")
    for kind, (added, worked) in figures.items():
        if kind == "earlier":
            yield Sample("limits_none", plain[1], "µs/task", worked)
            yield Sample("enqueue_limits_none", plain[0], "µs/task", added)
        else:
            yield Sample(f"limits_{kind}", worked, "µs/task", plain[1])
            yield Sample(f"enqueue_limits_{kind}", added, "µs/task", plain[0])


def blocked(setting: Setting) -> Samples:
    """A slot is freed and taken again in one step, while ten thousand lines wait for it."""
    server, lines, steps = setting.server, 10_000, 40
    server.clear()
    queue, plain = Queue(server.url, "blocked"), Queue(server.url, "plain")
    queue.declare("gate", concurrency=1)
    queue.declare("key", **_WIDE)
    queue.enqueue(limits(("gate", None), ("key", str(number))) for number in range(lines + (_TURNS + 1) * steps))
    plain.enqueue("" for _ in range((_TURNS + 1) * steps))
    assert queue.step() == 1
    while server.command("ZCARD", "ardiq:{blocked}:ring:default"):
        assert queue.step() == 1
    taken: dict[Queue, list[float]] = {queue: [], plain: []}
    for _ in range(_TURNS):
        for each in taken:
            before = server.cpu_us()
            for _ in range(steps):
                assert each.step(want=16 if each is queue else 1) == 1
            taken[each].append((server.cpu_us() - before) / steps)
    yield Sample("settle_before_10000", median(taken[queue]), "µs/step", median(taken[plain]))


def idle_keys(setting: Setting) -> Samples:
    """A million keys have had a task each, and none has any more. Once."""
    if "idle" in setting.contests:
        return
    n = 100_000 if setting.quick else _MANY
    with setting.start_server() as server:
        queue, numbers = Queue(server.url, "idle"), count()
        queue.declare("limit", concurrency=2, rate=1_000, per_ms=1_000, burst=10)

        def use(keys: int) -> tuple[int, set[str]]:
            for _ in range(0, keys, played.AT_ONCE):
                queue.enqueue([limits(("limit", str(next(numbers)))) for _ in range(played.AT_ONCE)])
                queue.step(result_ttl_ms="0")
            queue.step(result_ttl_ms="0")
            return server.memory(), {name for name in server.command("KEYS", "*") if ":stats:" not in name}

        before, known = use(100 * played.AT_ONCE)
        after, left = use(n)
        queue.close()
    yield Sample("idle_keys_memory", (after - before) / n, "bytes/key")
    yield Sample("idle_keys_left", len(left - known), "keys")


def slots(setting: Setting) -> Samples:
    """From the end of what had the only slot to the next body, beside enqueue to body."""
    setting.server.clear()
    with setting.programs.worker(option="limit"):
        figures = setting.programs.producer("slots", "limit", n=100 if setting.quick else 300, pause_us=2_000)
    floor = figures["body_us"]["p50"]
    yield Sample("slot_passed_on_p50", figures["passed_us"]["p50"], "µs", floor)
    yield Sample("slot_reused_p50", figures["reused_us"]["p50"], "µs", floor)


_FEW_FIGURES = [f"limits_{kind.name}" for kind in _FEW_KEYS[1:]]
_MANY_FIGURES = [f"limits_{kind.name}" for kind in _many_keys(1)[1:]]


def _names(figures: list[str]) -> str:
    return " ".join([*figures, *(f"enqueue_{name}" for name in figures)])


MEASURES: list[tuple[str, Callable[[Setting], Samples]]] = [
    (_names(["limits_none"]), no_limits),
    (_names(_FEW_FIGURES), few_keys),
    (_names(_MANY_FIGURES), many_keys),
    ("settle_before_10000", blocked),
    ("idle_keys_memory idle_keys_left", idle_keys),
    ("slot_passed_on_p50 slot_reused_p50", slots),
]
"""As `bench.measures.MEASURES`."""
