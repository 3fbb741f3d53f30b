"""Random interleavings of clients and workers, on the model and on a real server at once.

After each call both have answered the same and have every task in the same place, with the same tries; what was
enqueued is there or was removed; `fsck` finds nothing. Any call may be the last of its maker, and any reply may be
lost, so that the same call comes again. A failure is shrunk, and told as a fixture to keep.

`make soak SOAK_SECONDS=600 SEED=7` goes on for as long as that, from that seed on; else it walks a few, the same
everywhere.
"""

from __future__ import annotations

from typing import Any

import soak
from both_queues import A_WHILE, LANES, LONG, SHORT, BothQueues
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test
from model_queue import FINISHED

from ardiq._core import Core

SETTINGS = settings(
    max_examples=10, stateful_step_count=60, deadline=None, database=None, print_blob=False, report_multiple_bugs=False,
    phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
)  # fmt: skip

SCHEDULES = ["hourly", "nightly"]
# What recurs by each version of the code, and the signs of life: of which, does it start, after how long.
CODE = {"v1": {"hourly": 1000}, "v2": {"hourly": 2000, "nightly": 1000}, "v3": {}, "by hand": {"nightly": 3000}}
SIGN = st.tuples(
    st.sampled_from(list(CODE)),
    st.sampled_from([0, 0, 1]),
    st.sampled_from([*[0, A_WHILE // 2, A_WHILE] * 3, 90_000_000]),
)
IDS = [*"abcdefghij", "hourly:1000", "nightly:1000"]
KEEP = st.sampled_from([SHORT, 0, -1])
LEASE = st.sampled_from([SHORT, LONG])
LATER = st.sampled_from([0, 500_000, SHORT])
ID, LANE, NUMBER = st.sampled_from(IDS), st.sampled_from(LANES), st.integers(0, 7)
SERVED: Any = st.sampled_from([
    LANES, LANES[::-1], LANES[:1], LANES[1:], [{"lane": "high", "limit": 0}, {"lane": "low", "limit": 1}],
    [{"lane": "high", "weight": 3}, {"lane": "low", "weight": 1}],
    [{"lane": "low", "weight": 2, "limit": 2}, {"lane": "high", "weight": 1}],
])  # fmt: skip
SHARED = [{"lane": lane, "weight": weight} for lane, weight in (("high", 6), ("low", 3), ("slow", 2))]
WAITING_MS = 1_000_000_000
MAILBOX = st.sampled_from(["client:1", "client:2"])


KEY, OTHER_KEY = {"key": "k"}, {"key": "l"}
WHAT = ["keep", "replace", "replace", "reject"]
RULES = [
    *({"unique": {**KEY, "until": until, "on_conflict": what}} for until in ("start", "finish") for what in WHAT),
    *({"unique": {**OTHER_KEY, "until": until, "on_conflict": what}} for until in ("start", "finish") for what in WHAT),
    *({"unique": {**KEY, "until": "window", "ttl_ms": SHORT, "on_conflict": what}} for what in ("keep", "replace")),
    {"debounce": {**KEY, "quiet_ms": 500_000}}, {"debounce": {**OTHER_KEY, "quiet_ms": SHORT, "most_ms": 2_250_000}},
    {"throttle": {**KEY, "per_ms": SHORT}}, {"throttle": {**KEY, "per_ms": SHORT, "trailing": False}},
    *[{"throttle": {**OTHER_KEY, "per_ms": SHORT}}] * 2,
]  # fmt: skip

SOME_RULES = st.one_of(
    st.sampled_from(RULES).map(lambda each: [each] * 3), st.lists(st.sampled_from(RULES), min_size=2, max_size=4)
)


def _whole(task: dict[str, Any]) -> dict[str, Any]:
    options = {**task["options"]}
    rule = options.pop("rule", {})
    if "debounce" in rule or "throttle" in rule:
        options.pop("delay_ms", None)
    more = {"waiter_ttl_ms": SHORT} if "waiter" in options else {}
    return {**task, "options": {**options, **rule, **more}}


TASK = st.fixed_dictionaries(
    {
        "id": ID,
        "name": st.sampled_from(["bill", "send"]),
        "lane": LANE,
        "args": st.sampled_from([[], [1], [2]]),
        "kwargs": st.sampled_from(["", {"of": 1}, {"of": 2}]),
        "options": st.fixed_dictionaries(
            {},
            optional={
                "delay_ms": st.sampled_from([500_000, SHORT]),
                "expire_ms": st.sampled_from([500_000, SHORT]),
                "result_ttl_ms": st.sampled_from([-1, 0, SHORT, LONG]),
                "idempotency_key": st.sampled_from(["1", "2"]),
                "waiter": MAILBOX,
                "rule": st.sampled_from(RULES),
            },
        ),
    }
).map(_whole)
OUTCOMES = st.lists(
    st.tuples(
        NUMBER,
        st.sampled_from(["complete", "failed", "retry", "snooze", "unknown", "aborted", "release"]),
        st.fixed_dictionaries({}, optional={"delay_ms": LATER, "max_age_ms": st.sampled_from([SHORT, LONG])}),
    ),
    max_size=4,
)
HOW_FAR = st.sampled_from(["", '{"fraction":0.5}', '{"fraction":1}'])
NOTE = {"note": st.sampled_from(["", "of", "for"]), "text": st.sampled_from(["", "1", "2"])}
TOLD = st.lists(st.fixed_dictionaries(NOTE), max_size=4)
RULE = st.sampled_from([
    {"task": "", "argument": "", "value": None}, {"task": "bill", "argument": "", "value": None},
    {"task": "send", "argument": "of", "value": 1}, {"task": "*", "argument": "of", "value": 1},
])  # fmt: skip
WORD = st.sampled_from(["1", '"two"'])
# The reply is lost: the call is made again.
AGAIN = st.booleans()


class Protocol(BothQueues):
    # Clients.

    @rule(tasks=st.lists(TASK, min_size=1, max_size=5), again=AGAIN)
    def enqueue(self, tasks: list[dict[str, Any]], again: bool) -> None:
        self.both("enqueue", again, tasks=tasks)

    @rule(ids=st.lists(ID, min_size=2, max_size=8, unique=True), lane=LANE, expire=st.sampled_from([0, LONG]))
    def enqueue_many(self, ids: list[str], lane: str, expire: int) -> None:
        options = {"expire_ms": expire} if expire else {}
        task = {"name": "send", "lane": lane, "args": [1], "kwargs": "", "options": options}
        self.both("enqueue", tasks=[{**task, "id": id} for id in ids])

    @rule(
        rules=SOME_RULES, lane=LANE, is_new=st.booleans(),
        ms=st.sampled_from([0, 0, 1_000_000, 2_000_000]), worker=NUMBER, beat=st.booleans(),
        how=st.sampled_from(["complete", "retry", "release", "abort", "nothing"]), ttl=KEEP, again=AGAIN,
    )  # fmt: skip
    def same_key(
        self, rules: list[dict[str, Any]], lane: str, is_new: bool, ms: int, worker: int, beat: bool, how: str,
        ttl: int, again: bool,
    ) -> None:  # fmt: skip
        """Calls with the same keys, and between them time passes and a task runs. `is_new`: nobody has the keys yet."""
        for id in list(self.model.keys.values()) if is_new else []:
            self.both("abort", id=id, result_ttl_ms=ttl)
        for number, each in enumerate(rules):
            self.named += 1
            id = f"s{self.named}"
            task = {"id": id, "name": "send", "lane": lane, "args": [number], "kwargs": "", "options": each}
            self.both("enqueue", again, tasks=[task])
            if ms:
                self.pass_time(ms)
            name = self.worker(worker % max(len(self.model.workers), 1))
            if beat:
                self.both("heartbeat", worker=name, lease_ms=LONG, result_ttl_ms=ttl, max_lost=3)
            if how == "nothing" or name not in self.model.workers:
                continue
            self.both("claim", worker=name, lanes=[lane], want=1, result_ttl_ms=ttl)
            held, token = self.held(name, 0)
            details = {"delay_ms": 500_000, "max_age_ms": 0} if how == "retry" else {}
            if how == "abort":
                self.both("abort", id=held, result_ttl_ms=ttl)
            else:
                self.both(how, again, worker=name, id=held, token=token, result_ttl_ms=ttl, **details)
            # The call before, whose reply came late.
            self.both("enqueue", tasks=[task])

    @rule(
        what=st.sampled_from(["abort", "await_", "stop_waiting", "watch"]), id=ID, at=NUMBER, mailbox=MAILBOX,
        wait=st.sampled_from([500_000, SHORT, WAITING_MS]), ttl=KEEP, again=AGAIN,
    )  # fmt: skip
    def one_task(self, what: str, id: str, at: int, mailbox: str, wait: int, ttl: int, again: bool) -> None:
        ids = [*[task.id for task in self.model.tasks.values() if task.state not in FINISHED][-6:], id]
        id = ids[at % len(ids)]
        more: dict[str, Any] = {} if what == "abort" else {"mailbox": mailbox}
        if what != "stop_waiting":
            more["result_ttl_ms"] = ttl
        if what in ("await_", "watch"):
            more["waiter_ttl_ms"] = wait
        self.both(what, again, id=id, **more)
        if what == "watch":
            # Who waits for longer is told of no change when nobody watches any more.
            self.both("await_", id=id, mailbox="client:3", waiter_ttl_ms=WAITING_MS, result_ttl_ms=ttl)

    @rule(at=st.lists(NUMBER, min_size=1, max_size=3), id=ID, again=AGAIN)
    def hurry(self, at: list[int], id: str, again: bool) -> None:
        ids = [*self.model.scheduled, *self.model.scheduled, id]
        self.both("hurry", again, tasks=[{"id": ids[each % len(ids)]} for each in at])

    @rule(
        what=st.sampled_from(["requeue", "requeue_with", "discard"]), at=st.lists(NUMBER, min_size=1, max_size=3),
        ttl=KEEP,
    )  # fmt: skip
    def dead_letters(self, what: str, at: list[int], ttl: int) -> None:
        ids = [*self.model.dead, "a", "b"]
        tasks = [{"id": ids[each % len(ids)]} for each in at]
        if what == "requeue_with":
            self.both("requeue_with", again=True, **tasks[0], args=[1])
        else:
            self.both(what, again=True, tasks=tasks, **({"result_ttl_ms": ttl} if what == "discard" else {}))

    @rule(
        place=st.sampled_from(["queued", "scheduled", "in lane", "quarantined", "held", "dead", "old"]), lane=LANE,
        ttl=KEEP, age=st.sampled_from([0, SHORT]), most=st.sampled_from([-1, 1]),
    )  # fmt: skip
    def purge(self, place: str, lane: str, ttl: int, age: int, most: int) -> None:
        if place == "old":
            self.both("discard_old", dead_ttl_ms=age, dead_limit=most, limit=2, result_ttl_ms=ttl)
        else:
            of = {"queued": lane, "in lane": lane, "held": "send(of=1)"}.get(place, "")
            offset, place = (most + 1, "scheduled") if place == "in lane" else (0, place)
            self.both("purge", place=place, which=of, offset=offset, limit=2, result_ttl_ms=ttl)

    @rule(
        what=st.sampled_from(["pause", "resume"]), which=RULE, positions=st.sampled_from([{}, {"send": 0}]),
        limit=st.integers(1, 3), go_on=st.integers(0, 1), again=AGAIN,
    )  # fmt: skip
    def pauses(
        self, what: str, which: dict[str, Any], positions: dict[str, int], limit: int, go_on: int, again: bool
    ) -> None:
        more = {"positions": positions} if what == "pause" else {"limit": limit, "resuming": go_on}
        self.both(what, again, **which, **more)

    @rule(which=RULE, worker=NUMBER, limit=st.integers(1, 2), ttl=KEEP)
    def pause_for_a_while(self, which: dict[str, Any], worker: int, limit: int, ttl: int) -> None:
        """What would be claimed is held, and given back a little at a time."""
        self.both("pause", **which, positions={"send": 0})
        for _ in range(2):
            self.both("claim", worker=self.worker(worker), lanes=LANES, want=5, result_ttl_ms=ttl)
            self.both("resume", **which, limit=limit, resuming=0)

    @rule(
        what=st.sampled_from(["put", "fire", "fire", "late", "pause", "go_on", "remove"]),
        name=st.sampled_from(SCHEDULES), lane=LANE, coalesce=st.booleans(), every=st.sampled_from([1, 2]), again=AGAIN,
        missed=st.sampled_from(["once", "once", "all", "skip"]),
    )  # fmt: skip
    def schedule(self, what: str, name: str, lane: str, coalesce: bool, every: int, again: bool, missed: str) -> None:
        known = self.model.schedules.get(name)
        due_at = known.due_at if known and what != "late" else 1000
        if what == "put":
            definition = {
                "task": "send",
                "lane": lane,
                "every_ms": every * 1000,
                "coalesce": coalesce,
                "missed": missed,
            }
            self.both("schedule_put", again, name=name, definition=definition, next_due_at=1000)
            due_at = self.model.schedules[name].due_at
            self.both("schedule_fire", name=name, due_at=due_at, **self.times_after(due_at), headers="")
        elif what == "remove":
            self.both("schedule_remove", name=name)
        elif what in ("pause", "go_on"):
            self.both("schedule_pause", name=name, paused=int(what == "pause"))
        else:
            headers = '{"h":1}' if again else ""
            self.both("schedule_fire", again, name=name, due_at=due_at, **self.times_after(due_at), headers=headers)

    def times_after(self, due_at: int) -> dict[str, int]:
        return {"following_at": due_at + 1000, "next_due_at": due_at + 3000}

    @rule(signs=st.lists(SIGN, min_size=1, max_size=5), again=AGAIN)
    def code(self, signs: list[tuple[str, int, int]], again: bool) -> None:
        """Workers of several versions of the code start, and tell that they run."""
        for version, start, ms in signs:
            if ms:
                self.pass_time(ms)
            source = "runtime" if version == "by hand" else "code"
            schedules: list[dict[str, Any]] = [
                {
                    "name": name,
                    "definition": {"task": "send", "lane": "low", "every_ms": every, "source": source},
                    "next_due_at": 1000,
                }
                for name, every in CODE[version].items()
            ]
            if source == "runtime":
                self.both("schedule_put", **schedules[0])
            else:
                self.both("schedule_declare", again, version=version, starting=start, schedules=schedules)

    # Workers. One that is not called any more has died.

    @precondition(lambda self: len(self.model.workers) < 4)
    @rule(lease=LEASE, again=AGAIN)
    def join(self, lease: int, again: bool) -> None:
        self.enter(lease, again)

    @rule(
        worker=NUMBER, outcomes=OUTCOMES, lease=LEASE, ttl=KEEP, lanes=SERVED, want=st.integers(0, 5),
        seq=st.sampled_from([1, 1, 1, 0, -1, 2]), again=AGAIN, hand_off=st.sampled_from([1, 1, 0]),
    )  # fmt: skip
    def step(
        self, worker: int, outcomes: Any, lease: int, ttl: int, lanes: Any, want: int, seq: int, again: bool,
        hand_off: int,
    ) -> None:  # fmt: skip
        name = self.worker(worker)
        number = max(self.last_step(name) + seq, 1)
        records = []
        for at, outcome, details in outcomes:
            id, token = self.held(name, at)
            record = {"id": id, "token": token, "outcome": outcome}
            if outcome == "unknown":
                record["details"] = {name: value for name, value in details.items() if name == "max_age_ms"}
            elif outcome in ("retry", "snooze"):
                record["details"] = details
            records.append(record)
        self.both(
            "step", again, worker=name, seq=number, lease_ms=lease, result_ttl_ms=ttl, lanes=lanes, want=want,
            hand_off=hand_off, outcomes=records,
        )  # fmt: skip

    @rule(
        worker=NUMBER, lanes=SERVED, want=st.integers(1, 3), tasks=st.lists(TASK, min_size=1, max_size=5),
        settled=st.integers(0, 2), ttl=KEEP, again=AGAIN,
    )  # fmt: skip
    def hand_off(
        self, worker: int, lanes: Any, want: int, tasks: list[dict[str, Any]], settled: int, ttl: int, again: bool
    ) -> None:
        """A worker that takes all there is and then finds nothing may be handed what is enqueued next. Its next step
        settles some of that, and tells of the rest.
        """
        name = self.worker(worker % max(len(self.model.workers), 1))
        terms = {"worker": name, "lease_ms": SHORT, "result_ttl_ms": ttl, "hand_off": 1}
        for served, most in ((LANES, 20), (lanes, want)):
            seq = self.last_step(name) + 1
            self.both("step", again, seq=seq, lanes=served, want=most, outcomes=[], **terms)
        self.both("enqueue", again, tasks=tasks)
        handed = [claim for claim in self.model.workers[name].running.items() if claim not in self.tokens]
        outcomes = [{"id": id, "token": token, "outcome": "complete"} for id, token in handed[:settled]]
        self.both(
            "step", again, seq=self.last_step(name) + 1, lanes=lanes, want=want - 1, outcomes=outcomes, **terms
        )  # fmt: skip

    @rule(worker=NUMBER, lanes=SERVED, want=st.integers(1, 4), ttl=KEEP)
    def claim(self, worker: int, lanes: Any, want: int, ttl: int) -> None:
        self.both("claim", worker=self.worker(worker), lanes=lanes, want=want, result_ttl_ms=ttl)

    @rule(
        worker=NUMBER, lanes=st.permutations(SHARED), ttl=KEEP,
        rounds=st.lists(st.tuples(st.tuples(*[st.integers(0, 4)] * 3), st.integers(1, 8)), min_size=1, max_size=4),
    )  # fmt: skip
    def share(self, worker: int, lanes: Any, rounds: list[tuple[tuple[int, ...], int]], ttl: int) -> None:
        """A worker has its claims from several lanes by their weights; some of them run empty, and get more."""
        for number, (new, want) in enumerate(rounds):
            names = [lane["lane"] for lane, most in zip(lanes, new, strict=True) for _ in range(most)]
            task = {"name": "send", "args": [2], "kwargs": "", "options": {}}
            tasks = [{**task, "id": f"{number}:{at}", "lane": lane} for at, lane in enumerate(names)]
            self.both("enqueue", tasks=tasks)
            self.both("claim", worker=self.worker(worker), lanes=lanes, want=want, result_ttl_ms=ttl)

    @rule(
        worker=NUMBER, at=NUMBER, how=st.sampled_from(["complete", "fail", "release", "retry", "snooze"]), ttl=KEEP,
        delay=LATER, max_age=st.sampled_from([0, SHORT]), again=AGAIN,
    )  # fmt: skip
    def settle(self, worker: int, at: int, how: str, ttl: int, delay: int, max_age: int, again: bool) -> None:
        name = self.worker(worker)
        id, token = self.held(name, at)
        details = {"delay_ms": delay, "max_age_ms": max_age} if how in ("retry", "snooze") else {}
        self.both(how, again, worker=name, id=id, token=token, result_ttl_ms=ttl, **details)

    @rule(worker=NUMBER, at=NUMBER, how=HOW_FAR, told=TOLD, ttl=KEEP)
    def progress(self, worker: int, at: int, how: str, told: list[dict[str, str]], ttl: int) -> None:
        name = self.worker(worker)
        id, token = self.held(name, at)
        self.both("progress", worker=name, id=id, token=token, progress=how, result_ttl_ms=ttl, told=told)

    @rule(worker=NUMBER, at=NUMBER, back=st.integers(0, 2), words=st.lists(WORD, max_size=3), ttl=KEEP, again=AGAIN)
    def emit(self, worker: int, at: int, back: int, words: list[str], ttl: int, again: bool) -> None:
        """Chunks that follow those before, or some of which are there already."""
        name = self.worker(worker)
        self.add_chunks(name, *self.held(name, at), words, back, ttl, again)

    @rule(worker=NUMBER, at=NUMBER, ttl=KEEP)
    def stream_once_more(self, worker: int, at: int, ttl: int) -> None:
        """What streamed before it failed streams again, when somebody let it run again; a reader hears of it."""
        name = self.worker(worker % max(len(self.model.workers), 1))
        id, token = self.held(name, at)
        self.both("watch", id=id, mailbox="reader", waiter_ttl_ms=SHORT, result_ttl_ms=ttl)
        self.add_chunks(name, id, token, ["1"], 0, ttl, False)
        self.both("fail", worker=name, id=id, token=token, result_ttl_ms=ttl)
        self.both("requeue", tasks=[{"id": id}])
        self.both("claim", worker=name, lanes=LANES, want=8, result_ttl_ms=ttl)
        for number in range(len(self.model.workers[name].running) if name in self.model.workers else 0):
            self.add_chunks(name, *self.held(name, number), ["1"], 0, ttl, False)

    def add_chunks(self, name: str, id: str, token: int, words: list[str], back: int, ttl: int, again: bool) -> None:
        there = self.model.streams[id].chunks[-1:] if id in self.model.streams else []
        number = there[0][1] + 1 if there and there[0][0] == token else 0
        chunks = [{"chunk": word} for word in words]
        more = {"number": max(0, number - back), "result_ttl_ms": ttl, "chunks": chunks}
        self.both("emit", again, worker=name, id=id, token=token, **more)

    @rule(worker=NUMBER, lease=LEASE, ttl=KEEP, max_lost=st.sampled_from([1, 3]), again=AGAIN)
    def heartbeat(self, worker: int, lease: int, ttl: int, max_lost: int, again: bool) -> None:
        name = self.worker(worker)
        self.both("heartbeat", again, worker=name, lease_ms=lease, result_ttl_ms=ttl, max_lost=max_lost)

    @rule(worker=NUMBER, ttl=KEEP, again=AGAIN)
    def leave(self, worker: int, ttl: int, again: bool) -> None:
        self.both("leave", again, worker=self.worker(worker), result_ttl_ms=ttl)

    @rule(ttl=KEEP, max_lost=st.sampled_from([1, 3]), want=st.integers(0, 3))
    def lose_the_others(self, ttl: int, max_lost: int, want: int) -> None:
        """Leases end while one worker lives: it beats, and claims what the others leave."""
        if len(self.model.workers) < 4:
            self.enter(LONG)
        name = next(reversed(self.model.workers))
        for ms in (0, 2_000_000, 2_000_000):
            if ms:
                self.pass_time(ms)
            self.both("heartbeat", worker=name, lease_ms=LONG, result_ttl_ms=ttl, max_lost=max_lost)
        self.both("claim", worker=name, lanes=LANES, want=want, result_ttl_ms=ttl)

    @rule(
        worker=NUMBER,
        outcome=st.sampled_from(["complete", "complete", "failed", "retry", "snooze"]),
        ttl=KEEP,
        want=st.integers(1, 8),
        how=HOW_FAR,
        told=TOLD,
    )
    def work(self, worker: int, outcome: str, ttl: int, want: int, how: str, told: list[dict[str, str]]) -> None:
        """A worker's usual day: what it holds streams, it settles that and takes more. One that it settled and one it
        has by then tell.
        """
        name = self.worker(worker % max(len(self.model.workers), 1))
        claims = [self.held(name, at) for at in range(len(self.model.workers[name].running))]
        for id, token in claims if told else []:
            self.add_chunks(name, id, token, ["1"], 0, ttl, False)
        more = {"details": {"delay_ms": 500_000}} if outcome == "snooze" else {}
        records = [{"id": id, "token": token, "outcome": outcome, **more} for id, token in claims]
        self.both(
            "step", again=True, worker=name, seq=self.last_step(name) + 1, lease_ms=SHORT, result_ttl_ms=ttl,
            lanes=LANES, want=want, hand_off=1, outcomes=records,
        )  # fmt: skip
        for id, token in [*claims[:1], self.held(name, 0)] if told else []:
            self.both("progress", worker=name, id=id, token=token, progress=how, result_ttl_ms=ttl, told=told)

    @rule(what=st.sampled_from(["record", "entry", "field", "ghost", "load"]), at=st.integers(0, 15), ttl=KEEP)
    def repair_what(self, what: str, at: int, ttl: int) -> None:
        ids = [task.id for task in self.model.tasks.values() if self.model.place_of(task)]
        if ids:
            self.repair(what, ids[at % len(ids)], ttl)

    @rule(ms=st.sampled_from([1_000_000, 2_000_000, 6_000_000]))
    def time_passes(self, ms: int) -> None:
        self.pass_time(ms)

    # What matters most comes up more often.
    work_again, step_again, enqueue_again, client_again, operator_again = work, step, enqueue, one_task, dead_letters
    same_key_again = same_key


def test_the_server_does_what_the_model_does(server_url: str) -> None:
    Protocol.core = Core(server_url, Protocol.base)
    soak.walk(lambda number: run_state_machine_as_test(seed(number)(Protocol), settings=SETTINGS), 2)
    Protocol.core.close()


def test_what_rests_for_a_second_ends_for_both(server_url: str) -> None:
    queues = Protocol()
    Protocol.core = Core(server_url, Protocol.base)
    queues.begin()
    task = {"name": "send", "lane": "low", "args": [1], "kwargs": "", "options": {}}
    queues.both("enqueue", tasks=[{**task, "id": id} for id in ("a", "b")])
    queues.enter(LONG)
    queues.both("claim", worker="w:1", lanes=LANES, want=2, result_ttl_ms=LONG)
    outcomes = [{"id": id, "token": token, "outcome": "unknown", "details": {}} for id, token in queues.tokens]
    step = {"worker": "w:1", "lease_ms": LONG, "result_ttl_ms": LONG, "lanes": LANES}
    queues.both("step", seq=1, want=0, outcomes=outcomes, **step)
    queues.server.pass_time(1_500)  # as on a busy machine
    queues.both("step", seq=2, want=2, outcomes=[], **step)
    Protocol.core.close()


def test_what_is_handed_over_is_the_same_for_both(server_url: str) -> None:
    queues = Protocol()
    Protocol.core = Core(server_url, Protocol.base)
    queues.begin()
    task = {"name": "send", "lane": "low", "args": [1], "kwargs": "", "options": {}}
    step = {"lease_ms": LONG, "result_ttl_ms": LONG, "lanes": LANES, "want": 2, "hand_off": 1}
    for worker in ("w:1", "w:2"):
        queues.enter(LONG)
        queues.both("step", again=True, worker=worker, seq=1, outcomes=[], **step)
    queues.both("enqueue", again=True, tasks=[{**task, "id": id} for id in ("a", "b", "c")])
    held = dict(queues.model.workers["w:1"].running)
    assert list(held) == ["a", "b"]
    settled = [{"id": "b", "token": held["b"], "outcome": "complete"}]
    queues.both("step", again=True, worker="w:1", seq=2, outcomes=settled, **step)
    queues.both("enqueue", tasks=[{**task, "id": id} for id in ("d", "e")])
    assert list(queues.model.workers["w:2"].running) == ["c"]
    queues.both("leave", worker="w:2", result_ttl_ms=LONG)
    queues.both("step", worker="w:1", seq=3, outcomes=[], **step)
    Protocol.core.close()
