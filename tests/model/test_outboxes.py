"""Workflows with nodes in other queues, and carriers that crash, repeat themselves and come late, at random.

Two queues, each with workflows that have nodes in the other. What is told to a queue is told at least once, and must
count once: each life of a node runs once, its result is that of its last life, and when nobody stops a workflow all of
it completes once every dead letter has run again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import soak
from server_queue import CLAIM_WIDTH, SNAPSHOT, ServerQueue, pairs, text

from ardiq._core import Core
from ardiq._values.encodings import netstrings

NAMES = ("one", "two")
LEASE_MS, KEPT_MS, ASKED_AGAIN_MS = 10_000_000, 900_000, 70_000
MOST_LATE = 5
"""How late a carrier may be, in times that pass: a guest is remembered for longer."""
WITHOUT_END = 400
ENDED = ("complete", "failed", "aborted", "discarded", "expired", "skipped")


@dataclass
class Row:
    """What a carrier has read."""

    queue: str
    entry: str
    life: str
    to: str
    function: str
    arguments: bytes
    passed: int = 0


@dataclass
class Queue:
    name: str
    server: Claims
    seq: int = 0
    held: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By id, of what the worker runs: its token, and its life."""
    tasks: dict[str, dict[str, str]] = field(default_factory=dict)
    keys: dict[str, list[str]] = field(default_factory=dict)
    ttls: dict[str, int] = field(default_factory=dict)


class Claims(ServerQueue):
    def _claims(self, name: str, flat: list[str]) -> Any:
        at = 3 + 3 * int(flat[2])
        return [(flat[i], flat[i + 1]) for i in range(at, len(flat), CLAIM_WIDTH)]


class Machine:
    def __init__(self, cores: dict[str, Core], seed: int) -> None:
        self.chance = Random(seed)
        self.is_narrow = seed % 2 == 1
        """Whether each workflow is one node, which fails often: its lives and what is told late of them come close."""
        self.queues = {name: Queue(name, Claims(cores[name], f"ardiq:{{{name}}}:")) for name in NAMES}
        next(iter(cores.values())).command(["FLUSHALL"])
        self.fails: dict[tuple[str, str], int] = {}
        self.nodes: dict[tuple[str, str], list[str]] = {}
        self.spoiled: set[tuple[str, str]] = set()
        """Workflows that need not complete: something of them was stopped."""
        self.lives: dict[tuple[str, str], set[str]] = {}
        """By queue and id, the lives that have begun to run; of a task of its own queue, how often it was claimed."""
        self.lossy: set[tuple[str, str]] = set()
        self.late: list[Row] = []
        for queue in self.queues.values():
            queue.server.call("join", worker="w:1", lease_ms=LEASE_MS, lanes=["default"])
        self.look()

    # What is there.

    def look(self) -> None:
        for queue in self.queues.values():
            _, dump = queue.server.core.command(["EVAL", SNAPSHOT, 0, queue.server.base])
            queue.keys = {text(name): [text(value) for value in content] for name, content, _ in dump}
            queue.ttls = {text(name): int(ttl) for name, _, ttl in dump}
            queue.tasks = {name[5:]: pairs(flat) for name, flat in queue.keys.items() if name.startswith("task:")}
            for id, record in queue.tasks.items():
                if "home" in record and id in queue.keys.get("dead", []):
                    raise AssertionError(f"guest {id} is a dead letter of {queue.name}")
                is_told = f"ended {id}" in queue.keys.get("outbox", []) or queue.ttls[f"task:{id}"] >= 0
                if "home" in record and record["state"] in ENDED and not (is_told or (queue.name, id) in self.lossy):
                    raise AssertionError(f"guest {id} of {queue.name} is {record['state']}, and nobody is to be told")
        for queue in self.queues.values():
            for id, record in queue.tasks.items():
                if "queue" in record:
                    self.check(queue, id, record)

    def check(self, queue: Queue, id: str, record: dict[str, str]) -> None:
        """A node of another queue ends as its life there did, and is not forgotten there before."""
        there, life, state = f"{id}@{queue.name}", record["life"], record["state"]
        if state == "complete" and record["result"] != f'"{there} {life}"':
            raise AssertionError(f"{id} of {queue.name} has {record['result']}, and its life is {life}")
        if state == "failed" and record["error"] != f'"{there} {life}"':
            raise AssertionError(f"{id} of {queue.name} failed as {record['error']}, and its life is {life}")
        other = self.queues[record["queue"]]
        guest = other.tasks.get(there, {})
        has_ended = state == "away" and guest.get("life") == life and guest["state"] in ENDED
        is_told = f"ended {there}" in other.keys.get("outbox", []) or (other.name, there) in self.lossy
        if has_ended and not is_told:
            raise AssertionError(f"{there} is {guest['state']}, and nobody is to tell {queue.name}")
        entries = {f"begin {id}", f"abort {id}"} & {*queue.keys.get("outbox", [])}
        is_lost = (queue.name, id) in self.lossy or (other.name, there) in self.lossy
        if state == "away" and guest.get("life") != life and not (entries or is_lost):
            raise AssertionError(f"{id} of {queue.name} is away, and nobody is to tell {other.name}")
        goes_on = guest.get("life") == life and guest["state"] not in ENDED and "abort_requested" not in guest
        if state == "away" and "abort_requested" in record and goes_on and not (f"abort {id}" in entries or is_lost):
            raise AssertionError(f"{id} of {queue.name} is to stop, and nobody tells {other.name}")

    def unfinished(self) -> list[str]:
        return [
            f"{id} of {queue.name}: {record}"
            for queue in self.queues.values()
            for id, record in queue.tasks.items()
            if record["state"] not in ENDED
        ]

    # Clients.

    def create(self) -> None:
        home = self.chance.choice(NAMES)
        id = f"w{self.chance.randrange(3)}"
        if id in self.queues[home].tasks:
            return
        [other] = [name for name in NAMES if name != home]
        records: list[dict[str, Any]] = []
        for at in range(1 if self.is_narrow else self.chance.randint(1, 6)):
            names = [record["name"] for record in records]
            after = self.chance.sample(names, self.chance.randint(0, min(2, len(names))))
            edges = [name + self.chance.choice(["", "", "?ignore"]) for name in after]
            options: dict[str, Any] = {"after": edges} if edges else {}
            if self.is_narrow or self.chance.random() < 0.6:
                options["queue"] = other
            records.append({"name": f"n{at}", "task": "noop", "lane": "default", "args": [], "options": options or ""})
            self.fails[home, f"{id}~n{at}"] = 3 if self.is_narrow else self.chance.choice([0, 0, 1, 2, 3])
        options = {"result_ttl_ms": KEPT_MS, "idempotency_key": f"call {self.chance.random()}"}
        answer = self.queues[home].server.call("workflow_create", id=id, options=options, nodes=records)
        if answer != "created":
            raise AssertionError(f"workflow_create answers {answer}")
        self.nodes[home, id] = [record["name"] for record in records]

    def some_of(self, queue: Queue, *states: str) -> str | None:
        ids = sorted(id for id, record in queue.tasks.items() if record["state"] in states and "kind" not in record)
        return self.chance.choice(ids) if ids else None

    def spoil(self, queue: Queue, id: str) -> None:
        home, _, _ = id.rpartition("@")
        self.spoiled.add((queue.tasks[id].get("home", queue.name), (home or id).partition("~")[0]))

    def abort(self) -> None:
        queue = self.queues[self.chance.choice(NAMES)]
        id = self.some_of(queue, "away", "away", "queued", "running", "blocked")
        if id is not None and self.chance.random() < 0.3:
            self.spoil(queue, id)
            whole = self.chance.random() < 0.3 and "home" not in queue.tasks[id]
            queue.server.call("abort", id=id.partition("~")[0] if whole else id, result_ttl_ms=KEPT_MS)

    def requeue(self) -> None:
        queue = self.queues[self.chance.choice(NAMES)]
        if dead := queue.keys.get("dead", [])[::2]:
            queue.server.call("requeue", tasks=[{"id": self.chance.choice(dead)}])

    def discard(self) -> None:
        queue = self.queues[self.chance.choice(NAMES)]
        if self.chance.random() < 0.1 and (id := self.some_of(queue, "failed", "queued")):
            self.spoil(queue, id)
            if queue.tasks[id]["state"] == "failed":
                queue.server.call("discard", tasks=[{"id": id}], result_ttl_ms=KEPT_MS)
            else:
                for each in queue.tasks:
                    if queue.tasks[each]["state"] == "queued":
                        self.spoil(queue, each)
                queue.server.call(
                    "purge", place="queued", which="default", offset=0, limit=100, result_ttl_ms=KEPT_MS
                )  # fmt: skip

    # Damage: what is told is lost, or what was told.

    def lose_entry(self) -> None:
        queue = self.queues[self.chance.choice(NAMES)]
        if self.chance.random() < 0.2 and queue.keys.get("outbox"):
            entry = text(queue.server.core.command(["LPOP", f"{queue.server.base}outbox"]))
            self.lossy.add((queue.name, entry.partition(" ")[2]))

    def lose_guest(self) -> None:
        queue = self.queues[self.chance.choice(NAMES)]
        ids = [id for id, record in queue.tasks.items() if "home" in record and id not in queue.held]
        if self.chance.random() < 0.1 and ids:
            id = self.chance.choice(ids)
            queue.server.core.command(["DEL", f"{queue.server.base}task:{id}"])
            self.lives.pop((queue.name, id), None)
            self.lossy.add((queue.name, id))

    def mend(self) -> int:
        """What heartbeats do not find is for `fsck`; how many findings were mended."""
        mended = 0
        for queue in self.queues.values():
            flat = queue.server.core.call("fsck_page", ["records", "0", "1000"])
            found = [
                (kind, id, detail)
                for kind, id, detail in zip(*[map(text, flat[2:])] * 3, strict=True)
                if kind not in ("queued", "entry", "group", "ended")
            ]
            for kind, id, detail in found:
                if (queue.name, id) not in self.lossy:
                    raise AssertionError(f"fsck finds {kind} {id} in {queue.name} although nobody did harm to it")
                finding = {"kind": kind, "id": id, "detail": detail}
                mended += queue.server.call("repair", findings=[finding], result_ttl_ms=KEPT_MS) == ["mended"]
        return mended

    # Workers.

    def work(self, most: int = 3) -> None:
        queue = self.queues[self.chance.choice(NAMES)]
        self.step(queue, self.chance.sample(sorted(queue.held), self.chance.randint(0, len(queue.held))), most)

    def step(self, queue: Queue, ids: list[str], want: int) -> None:
        outcomes: list[dict[str, Any]] = []
        for id in ids:
            token, life = queue.held.pop(id)
            record = queue.tasks.get(id, {})
            home, at_home = (record["home"], id.rpartition("@")[0]) if "home" in record else (queue.name, id)
            how = "failed" if int(life.split()[0]) <= self.fails.get((home, at_home), 0) else "complete"
            if "abort_requested" in record and self.chance.random() < 0.7:
                how = "aborted"
            outcomes.append({"id": id, "token": token, "outcome": how, "value": f'"{id} {life}"'})
        queue.seq += 1
        claims = queue.server.call(
            "step", worker="w:1", seq=queue.seq, lease_ms=LEASE_MS, result_ttl_ms=KEPT_MS, lanes=["default"], want=want,
            outcomes=outcomes,
        )  # fmt: skip
        for id, token in claims:
            found = queue.server.core.command(["HGET", f"{queue.server.base}task:{id}", "life"])
            lives = self.lives.setdefault((queue.name, id), set())
            life = text(found) if found is not None else str(len(lives) + 1)
            if life in lives:
                raise AssertionError(f"{id} of {queue.name} runs twice in its life {life}")
            lives.add(life)
            queue.held[id] = (token, life)

    def beat(self, queue: Queue | None = None) -> None:
        queue = queue or self.queues[self.chance.choice(NAMES)]
        queue.server.call("heartbeat", worker="w:1", lease_ms=LEASE_MS, result_ttl_ms=KEPT_MS, max_lost=3)

    def time_passes(self) -> None:
        for queue in self.queues.values():
            queue.server.pass_time(ASKED_AGAIN_MS)
        for row in self.late:
            row.passed += 1
        self.late = [row for row in self.late if row.passed <= MOST_LATE]

    # Carriers.

    def read(self, queue: Queue, limit: int) -> list[Row]:
        flat = queue.server.core.call("outbox", [str(limit)])
        return [
            Row(queue.name, *(text(value) for value in flat[at : at + 4]), flat[at + 4])
            for at in range(0, len(flat), 5)
        ]  # fmt: skip

    def say(self, row: Row) -> str:
        if not row.to:
            return ""
        words = [part.decode() for part in netstrings(row.arguments)]
        reply = self.queues[row.to].server.core.call(row.function, words)
        return text(reply[0] if isinstance(reply, list) else reply)

    def done(self, row: Row, answer: str) -> None:
        self.queues[row.queue].server.core.call("outbox_done", [row.entry, row.life, answer])

    def carry(self) -> None:
        """Some of it, until the carrier dies."""
        for row in self.read(self.queues[self.chance.choice(NAMES)], self.chance.randint(1, 4)):
            how = self.chance.choice(["said", "said", "said", "said", "twice", "dies", "dies between", "away"])
            if self.chance.random() < 0.4:
                # Another one has read it, too, and is slow.
                self.late.append(replace(row))
            if how in ("said", "twice"):
                answer = self.say(row)
                if how == "twice":
                    self.say(row)
                    self.done(row, answer)
                self.done(row, answer)
            elif how == "away" and row.to:
                self.done(row, "BrokerError")
            elif how == "dies between":
                self.say(row)
                return
            elif how == "dies":
                return

    def carry_late(self) -> None:
        """Mostly what is about an earlier life."""
        late = [row for row in self.late if row.life != self.life_of(row)]
        if not late and self.chance.random() < 0.2:
            late = self.late
        if late:
            row = self.chance.choice(late)
            if self.chance.random() < 0.5:
                self.late.remove(row)
            answer = self.say(row)
            if self.chance.random() < 0.7:
                self.done(row, answer)

    def life_of(self, row: Row) -> str:
        return self.queues[row.queue].tasks.get(row.entry.partition(" ")[2], {}).get("life", "")

    # All of it.

    def walk(self, calls: int) -> None:
        rules = [
            self.create, self.create, self.abort, *[self.requeue] * 4, self.discard, self.lose_entry,
            self.lose_guest, self.beat, self.time_passes, self.carry_late, self.carry_late, self.carry_late,
            *[self.work] * 4, *[self.carry] * 5,
        ]  # fmt: skip
        if self.is_narrow:
            rules = [
                self.create,
                self.abort,
                *[self.requeue] * 3,
                *[self.carry_late] * 5,
                *[self.work] * 4,
                *[self.carry] * 5,
            ]
        for _ in range(calls):
            self.chance.choice(rules)()
            self.look()

    def drain(self) -> None:
        for _ in range(WITHOUT_END):
            for queue in self.queues.values():
                for row in self.read(queue, 100):
                    self.done(row, self.say(row))
                self.step(queue, sorted(queue.held), 100)
                self.beat(queue)
                self.look()
                if dead := queue.keys.get("dead", [])[::2]:
                    queue.server.call("requeue", tasks=[{"id": id} for id in dead])
                    self.look()
            is_still = not self.unfinished() and not any("outbox" in queue.keys for queue in self.queues.values())
            if is_still and not self.mend():
                break
            self.time_passes()
        else:
            outboxes = {name: queue.keys.get("outbox") for name, queue in self.queues.items()}
            raise AssertionError("never ends: " + "; ".join(self.unfinished()) + f"; {outboxes}")
        for queue in self.queues.values():
            for (home, id), names in self.nodes.items():
                if home == queue.name and id in queue.tasks and (home, id) not in self.spoiled:
                    states = {name: queue.tasks[f"{id}~{name}"]["state"] for name in names}
                    if queue.tasks[id]["state"] != "complete" or set(states.values()) != {"complete"}:
                        raise AssertionError(f"{id} of {home} is {queue.tasks[id]['state']}: {states}")
            if stay := [f"{id}" for id, record in queue.tasks.items() if queue.ttls[f"task:{id}"] < 0]:
                raise AssertionError(f"these stay for ever in {queue.name}: {stay}")


def test_what_is_told_at_least_once_counts_once(server_url: str) -> None:
    cores = {name: Core(server_url, f"ardiq:{{{name}}}:") for name in NAMES}

    def run(seed: int) -> None:
        machine = Machine(cores, seed)
        machine.walk(150)
        machine.drain()

    soak.walk(run, 12, 3)
    for core in cores.values():
        core.close()
