"""Random interleavings of clients and workers that die, repeat themselves and come late, on a real server: after every
call each task is in exactly one place, and what was counted adds up.

`ARDIQ_WALK_CALLS` sets how many calls a walk makes (default 500), `ARDIQ_WALK_SEED` the first seed.
"""

from __future__ import annotations

import json
import os
import random
import time
from typing import Any

import pytest
from places import check_places, text

from ardiq import ArdiqError
from ardiq._core import Core

LANES = ["high", "low"]
IDS = [f"t{i}" for i in range(25)]
NAMES = ["bill", "send"]
CLAIM_WIDTH = 10
CALLS = int(os.environ.get("ARDIQ_WALK_CALLS", "500"))
FIRST_SEED = int(os.environ.get("ARDIQ_WALK_SEED", "1"))


class Worker:
    def __init__(self, identity: str) -> None:
        self.identity = identity
        self.seq = 0
        self.held: dict[str, str] = {}


class Walk:
    def __init__(self, core: Core, base: str, seed: int) -> None:
        self.core, self.base, self.random = core, base, random.Random(seed)
        self.workers: list[Worker] = []
        self.joined = 0

    def lanes(self) -> str:
        return json.dumps(self.random.choice([LANES, LANES[:1], LANES[1:]]))

    def worker(self) -> Worker:
        return self.random.choice(self.workers)

    def enqueue(self) -> None:
        flat: list[str] = []
        for _ in range(self.random.randint(1, 4)):
            options: dict[str, Any] = {}
            if self.random.random() < 0.3:
                options["delay_ms"] = self.random.randint(0, 20)
            if self.random.random() < 0.2:
                options["expire_ms"] = self.random.randint(1, 20)
            if self.random.random() < 0.5:
                options["call"] = str(self.random.randint(0, 3))
            if self.random.random() < 0.3:
                options["waiter"] = "client:1"
            flat += [self.random.choice(IDS), self.random.choice(NAMES), self.random.choice(LANES)]
            flat += [self.random.choice(["[]", "[1]"]), self.random.choice(["", "{}", '{"of": 1}'])]
            flat += [json.dumps(options) if options else ""]
        self.core.call("enqueue", flat)

    def join(self) -> None:
        if len(self.workers) == 4:
            return
        self.joined += 1
        worker = Worker(f"w:{self.joined}")
        self.core.call("join", [worker.identity, self.lease(), "{}", json.dumps(LANES), 0])
        self.workers.append(worker)

    def lease(self) -> int:
        return self.random.choice([30, 200])

    def ttl(self) -> int:
        return self.random.choice([0, 5, 1000, -1])

    def die(self) -> None:
        self.workers.remove(self.worker())

    def leave(self) -> None:
        worker = self.worker()
        self.workers.remove(worker)
        while self.core.call("leave", [worker.identity, self.ttl()]) == 1:
            pass

    def step(self) -> None:
        worker = self.worker()
        worker.seq += 1
        outcomes: list[Any] = []
        for id, token in list(worker.held.items()):
            if self.random.random() < 0.6:
                outcome = self.random.choice(["complete", "complete", "failed", "retry", "aborted", "release"])
                details = self.random.choice(["", '{"delay_ms": 10}', '{"traceback": "x"}'])
                outcomes += [id, token, outcome, self.random.randint(0, 5), '"value"', details]
                del worker.held[id]
        if self.random.random() < 0.1:
            outcomes += [self.random.choice(IDS), "999999", "complete", 0, "1", ""]  # never handed out: stale
        head = [worker.identity, worker.seq, self.lease(), self.ttl(), self.lanes(), self.random.randint(0, 6)]
        claims = self.claims(self.core.call("step", head + outcomes))
        if self.random.random() < 0.2:  # the reply was lost
            assert self.claims(self.core.call("step", head + outcomes)) == claims
        worker.held.update(claims)

    def claims(self, reply: Any) -> dict[str, str]:
        flat = reply[3 + 3 * int(reply[2]) :]
        return {text(flat[i]): text(flat[i + 1]) for i in range(0, len(flat), CLAIM_WIDTH)}

    def settle_one(self) -> None:
        worker = self.worker()
        id, token = self.random.choice([*worker.held.items(), (self.random.choice(IDS), "999999")])
        answer = self.random.choice(
            [
                lambda: self.core.call("ack", [worker.identity, id, token, 1, '"value"', "", self.ttl()]),
                lambda: self.core.call("retry", [worker.identity, id, token, 1, 10, 0, "error", "", self.ttl()]),
                lambda: self.core.call("bury", [worker.identity, id, token, 1, "error", "", self.ttl()]),
                lambda: self.core.call("release", [worker.identity, id, token, self.ttl()]),
            ]
        )()
        assert (text(answer) == "stale") == (worker.held.get(id) != token)
        worker.held.pop(id, None)

    def heartbeat(self) -> None:
        generation, max_lost, left = (self.random.choice(values) for values in ([0, 1], [1, 3], [0, 2]))
        self.core.call("heartbeat", [self.worker().identity, 200, self.ttl(), generation, max_lost, left])

    def client(self) -> None:
        id = self.random.choice(IDS)
        self.random.choice(
            [
                lambda: self.core.call("abort", [id, self.ttl()]),
                lambda: self.core.call("abort", [id, self.ttl()]),
                lambda: self.core.call("await", [id, "client:1", 1000, self.ttl()]),
                lambda: self.core.call("forget", [id, "client:1"]),
                lambda: self.core.call("requeue", self.random.sample(IDS, 3)),
                lambda: self.core.call("discard", [self.ttl(), *self.random.sample(IDS, 2)]),
                lambda: self.core.call(
                    "purge",
                    [self.random.choice(["queued", "scheduled", "dead"]), self.random.choice(LANES), 2, self.ttl()],
                ),
                lambda: self.core.call("trim", [0, 1, 2, self.ttl()]),
                lambda: self.core.call("amend", [id, "[7]", "", "", ""]),
                lambda: self.core.call("purge", ["held", self.random.choice(["bill()", "*(of=1)"]), 2, self.ttl()]),
            ]
        )()

    def pauses(self) -> None:
        rule = self.random.choice([["", "", ""], ["bill", "", ""], ["send", "of", "1"], ["*", "of", "1"]])
        if self.random.random() < 0.4:
            self.core.call("pause", [*rule, json.dumps({self.random.choice(NAMES): 0})])
        else:
            self.core.call("resume", [*rule, self.random.randint(1, 3), self.random.randint(0, 1)])

    def no_grace(self) -> None:
        self.core.command(["HSET", self.base + "meta", "reap_after", 0])

    def call(self) -> str:
        """Make one random call; its name."""
        name = self.random.choice(
            ["enqueue"] * 6
            + ["join"] * 2
            + ["step"] * 6
            + ["settle_one", "heartbeat", "heartbeat", "client", "client", "pauses", "pauses"]
            + ["die", "leave", "no_grace", "sleep"]
        )
        if name == "sleep":
            time.sleep(0.01)
        elif self.workers or name in ("enqueue", "join", "client", "pauses", "no_grace"):
            try:
                getattr(self, name)()
            except ArdiqError as error:
                if "LEASE_LOST" not in str(error) and type(error).__name__ != "LeaseLost":
                    raise
                self.workers = [worker for worker in self.workers if self.is_member(worker)]
        return name

    def is_member(self, worker: Worker) -> bool:
        lease = self.core.command(["ZSCORE", self.base + "workers", worker.identity])
        return lease is not None and float(lease) > 0

    def findings(self) -> list[tuple[str, ...]]:
        sections = ["records", "scheduled", "suspects", "dead", "workers"]
        sections += [f"{place}:{lane}" for lane in LANES for place in ("ready", "tombs")]
        sections += [f"held:{text(pause)}" for pause in self.core.call("pauses", [])[::3]]
        sections += [f"running:{text(w)}" for w in self.core.command(["ZRANGE", self.base + "workers", 0, -1])]
        rows: list[tuple[str, ...]] = []
        for section in sections:
            flat = [text(value) for value in self.core.call("fsck_page", [section, "0", 1000])][2:]
            rows += [tuple(flat[i : i + 3]) for i in range(0, len(flat), 3)]
        return [row for row in rows if row[0] not in ("queued", "entry")]


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 4))
def test_every_task_is_in_exactly_one_place_after_every_call(server_url: str, seed: int) -> None:
    base = f"ardiq:{{walk-{seed}}}:"
    core = Core(server_url, base)
    walk = Walk(core, base, seed)
    for number in range(CALLS):
        name = walk.call()
        try:
            check_places(core.command, base)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}, call {number} ({name}): {error}") from None
        if number % 50 == 0:
            assert walk.findings() == []
    core.close()
