"""What happens between an end and what heartbeats do of it later: requeues, discards, aborts, more ends.

What is where meanwhile depends on how much was done already, and no model says it. Whenever nothing is left to
heartbeats, what a group counts must be what is there; and where nobody aborts or discards, all of it completes once
every dead letter has run again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle, islice
from typing import Any

from workflow_machine import LANES, LEASE_MS, MOST_LOST, WITHOUT_END, WorkflowMachine
from workflow_server import Looked, record_of
from workflow_tasks import KEPT_MS, Node

COUNTS = ("complete", "failed", "skipped", "aborted")
ENDED = (*COUNTS, "discarded", "expired")


class Unsettled(WorkflowMachine):
    spoiled: set[str]
    """Workflows that need not complete."""

    def call(self, function: str, *, expect: Any = None, **arguments: Any) -> Any:
        """Nothing is drained: heartbeats are calls as any other."""
        self.has_failed = True
        reply = self.server.call(function, **arguments)
        self.seen = self.server.look()
        if expect is not None and reply != expect:
            self.fail(f"{function} answers {reply}, and is to answer {expect}")
        self.check_awake(function)
        self.has_failed = False
        return reply

    def create(self, id: str, nodes: list[Node], kept_ms: int) -> None:
        records = [record_of(node) for node in nodes]
        if any(node.undoes for node in nodes):
            self.spoiled.add(id)
        self.call("workflow_create", id=id, options={"result_ttl_ms": kept_ms}, nodes=records, expect="created")

    def step(self, name: str, hows: list[str], want: int) -> int:
        """A worker settles what it holds, the eldest first, as many as there are `hows`. Replies how many it got."""
        worker, outcomes = self.workers[name], list[dict[str, Any]]()
        for (id, token), how in zip([*worker.held.items()], hows, strict=False):
            outcomes.append({"id": id, "token": token, "outcome": how, "value": '"it"'})
            del worker.held[id]
        if want:
            self.server.take_token(LANES)
        worker.is_idle = False
        worker.seq += 1
        self.call(
            "step", worker=name, seq=worker.seq, lease_ms=LEASE_MS, result_ttl_ms=KEPT_MS, lanes=LANES, want=want,
            outcomes=outcomes,
        )  # fmt: skip
        worker.held |= {got.id: got.token for got in self.server.got}
        worker.is_idle = bool(want) and not self.server.got and not self.server.more
        return len(self.server.got)

    def requeue(self, ids: list[str]) -> None:
        self.call("requeue", tasks=[{"id": id} for id in ids], expect=["queued"] * len(ids))

    def discard(self, ids: list[str]) -> None:
        self.spoiled |= {root_of(id) for id in ids}
        answers = ["discarded"] * len(ids)
        self.call("discard", tasks=[{"id": id} for id in ids], result_ttl_ms=KEPT_MS, expect=answers)

    def abort(self, id: str) -> None:
        self.spoiled.add(root_of(id))
        self.call("abort", id=id, result_ttl_ms=KEPT_MS)

    def pause(self, id: str) -> None:
        self.call("workflow_pause", id=id)

    def resume(self, id: str) -> None:
        self.call("workflow_resume", id=id, limit=1000, resuming=0)

    def beat(self) -> None:
        name = next(iter(self.workers))
        self.call("heartbeat", worker=name, lease_ms=LEASE_MS, result_ttl_ms=KEPT_MS, max_lost=MOST_LOST)

    def dead(self) -> list[str]:
        return sorted(self.seen.hash("dead"))

    # At rest.

    def rest(self) -> None:
        for _ in range(WITHOUT_END):
            if not self.server.has_chores():
                break
            self.beat()
        else:
            self.fail("chores are never done")
        if wrong := [each for each in miscounted(self.seen) if not self.is_borne(each)]:
            self.fail("; ".join(wrong))

    def is_borne(self, wrong: str) -> bool:
        return False

    def drain(self) -> None:
        """All completes; what failed before runs again until nothing is dead."""
        for id in self.seen.hash("pauses"):
            self.resume(id.removesuffix("~*"))
        for _ in range(WITHOUT_END):
            got = [self.step(name, ["complete"] * 99, 20) for name in self.workers]
            if any(got) or self.server.more or any(worker.held for worker in self.workers.values()):
                continue
            if self.server.has_chores():
                self.rest()
            elif "pauses" in self.seen.keys:
                self.beat()
            elif dead := self.dead():
                self.requeue(dead)
            else:
                break
        self.rest()
        tasks = self.seen.tasks
        if left := {id: record["state"] for id, record in tasks.items() if record["state"] not in ENDED}:
            self.fail(f"nothing runs, and these never end: {left}")
        # A map that never begins has its items until its workflow goes.
        skipped = {f"items:{id}" for id, record in tasks.items() if record["state"] == "skipped"}
        kinds = ("open", "items", "undo", "chores", "workflows", "dead", "pauses", "held")
        if keys := {key for key in self.seen.keys if key.partition(":")[0] in kinds} - skipped:
            self.fail(f"all workflows ended, and there are {keys}")
        for id, record in tasks.items():
            if "~" not in id and id not in self.spoiled and record["state"] != "complete":
                self.fail(f"all of {id} could complete, and it is {record}")


def miscounted(seen: Looked) -> Iterator[str]:
    """What groups say otherwise than their members do."""
    for id, record in seen.tasks.items():
        if "kind" not in record:
            continue
        counts = {name: int(record.get(name, 0)) for name in COUNTS}
        if record["kind"] == "workflow" and record["state"] in ENDED and f"nodes:{id}" not in seen.keys:
            yield f"{id} has ended, and nobody knows its nodes"
            continue
        undo = {name for name in seen.keys.get(f"nodes:{id}", []) if is_compensation(seen, f"{id}~{name}")}
        size = int(record.get("made", 0)) if record["kind"] == "map" else len(seen.keys[f"nodes:{id}"]) - len(undo)
        is_open, missing = ([*{*seen.keys.get(f"{kind}:{id}", [])} - undo] for kind in ("open", "failed"))
        if min(counts.values()) < 0 or sum(counts.values()) + len(is_open) != size:
            yield f"{id} counts {counts}, and open are {is_open} of {size}"
        if len(missing) != sum(counts.values()) - counts["complete"]:
            yield f"{id} counts {counts}, and without a result are {missing}"
        if ended := [name for name in is_open if seen.tasks.get(f"{id}~{name}", {}).get("state", "gone") in ENDED]:
            yield f"{ended} of {id} ended, and are open there"
        if record["state"] == "blocked" and seen.ttls[f"task:{id}"] != -1:
            yield f"{id} has not ended, and expires: {record}"
        if "~" not in id and int(record.get("dead", 0)) != (dead := dead_of(seen, id)):
            yield f"{id} counts {record.get('dead')} dead letters, and has {dead}"


def dead_of(seen: Looked, id: str) -> int:
    """Those that failed, and those of them that run again to no effect."""
    dead = 0
    for name in seen.keys.get(f"failed:{id}", []):
        record = seen.tasks.get(f"{id}~{name}", {})
        runs = bool(record) and record["state"] not in ENDED
        dead += "kind" not in record and (runs or record.get("state") == "failed")
    inner = [f"{id}~{name}" for name in seen.keys.get(f"nodes:{id}", [])]
    return dead + sum(dead_of(seen, each) for each in inner if "kind" in seen.tasks[each])


def is_compensation(seen: Looked, id: str) -> bool:
    return seen.tasks[id].get("after", "").endswith("?undo")


def root_of(id: str) -> str:
    return id.partition("~")[0]


def fan(width: int, chain: int, policies: list[str]) -> list[Node]:
    """One that many follow, each with some behind it, and one that comes after all of them."""
    given = cycle(policies)
    nodes = [Node("first")]
    for at in range(width):
        before = "first"
        for depth in range(1 + at % (chain + 1)):
            name = f"n{at}d{depth}"
            nodes.append(Node(name, {before: next(given)}))
            before = name
    ends = [node.name for node in nodes if not any(node.name in other.after for other in nodes)]
    return [*nodes, Node("last", dict(zip(ends, islice(given, len(ends)), strict=True)))]
