"""What workers do: join, step, claim, settle, heartbeat, leave, or nothing any more."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from model_clients import MOST_HANDED, Clients
from model_queue import FINISHED, Log, Offer, Pause, Refused, Stream, Task, Worker

# What a lane of weight 1 has of a claim: any weight in these tests divides it.
SHARE = 720_720
HOUR_MS, WEEK_MS = 3_600_000, 7 * 86_400_000
Claim = tuple[str, int, int]
"""Id, lease token, number of the attempt."""


class Workers(Clients):
    def join(self, worker: str, lease_ms: int, lanes: list[str]) -> None:
        known = self.workers.setdefault(worker, Worker(0))
        known.lease_until = self.now + lease_ms

    def leave(self, worker: str, result_ttl_ms: int) -> int:
        if worker in self.workers:
            self._take_from(worker, result_ttl_ms, None)
        return 0

    def _member(self, worker: str) -> Worker:
        if worker not in self.workers:
            raise Refused("LeaseLost")
        return self.workers[worker]

    def step(
        self,
        worker: str,
        seq: int,
        lease_ms: int,
        result_ttl_ms: int,
        lanes: list[Any],
        want: int,
        outcomes: list[dict[str, Any]],
        hand_off: int = 0,
    ) -> dict[str, Any]:
        member = self._member(worker)
        if seq < member.seq:
            raise Refused("OldStep")
        if seq > member.seq + 1:
            raise Refused("LeaseLost")
        member.lease_until = self.now + lease_ms
        if seq == member.seq:
            return {"refusals": member.answers, "claims": self._claims_since(member, member.first_token)}
        refusals = member.answers = self._settle(worker, outcomes, result_ttl_ms)
        self.promote()
        self.flush()
        handed = self._claims_since(member, member.handed)
        claims = self._claim(worker, lanes, want, result_ttl_ms)
        first = member.handed if handed else claims[0][1] if claims else None
        member.seq, member.first_token, member.handed, member.offer = seq, first, None, None
        if hand_off and want > 0 and not claims + handed:
            member.offer = Offer(lanes, want, lease_ms, result_ttl_ms)
            for lane in _served(lanes):
                self.idle.setdefault(lane, {})[worker] = self.now
        return {"refusals": refusals, "claims": claims + handed}

    def _claims_since(self, member: Worker, first_token: int | None) -> list[Claim]:
        if first_token is None:
            return []
        by_token = sorted((token, id) for id, token in member.running.items() if token >= first_token)
        return [(id, token, self.tasks[id].tries) for token, id in by_token]

    # Hand-offs: claims by those who enqueue, for workers that have nothing to do.

    def hand_off(self, lanes: list[str], asked: int, count: int) -> None:
        if "*()" in self.pauses:
            return
        offered: dict[str, Offer] = {}
        for lane in lanes:
            idle = self.idle.get(lane, {})
            for worker in sorted(idle, key=lambda name: (idle[name], name))[:asked]:
                offer = self._offer_of(worker)
                if offer is None:
                    del idle[worker]
                else:
                    offered.setdefault(worker, offer)
        self.flush()
        for at, (worker, offer) in enumerate(offered.items()):
            others = len(offered) - at - 1
            share = math.ceil(count / (others + 1)) if others else MOST_HANDED
            claims = self._claim(worker, offer.lanes, min(offer.want, share), offer.result_ttl_ms)
            if claims:
                count -= min(len(claims), count)
                self.workers[worker].offer, self.workers[worker].handed = None, claims[0][1]
                for lane in map(_name, offer.lanes):
                    self.idle.get(lane, {}).pop(worker, None)
                self.mail += [(f"{worker}:1", "claimed", id, str(token)) for id, token, _ in claims]
            if count == 0:
                break

    def _offer_of(self, worker: str) -> Offer | None:
        member = self.workers.get(worker)
        if member is None or member.offer is None:
            return None
        has_beaten = member.lease_until - self.now >= member.offer.lease_ms - min(member.offer.lease_ms / 3, 3_000)
        return member.offer if has_beaten else None

    # Claims.

    def claim(self, worker: str, lanes: list[Any], want: int, result_ttl_ms: int) -> list[Claim]:
        self._member(worker)
        return self._claim(worker, lanes, want, result_ttl_ms)

    def _claim(self, worker: str, lanes: list[Any], want: int, ttl_ms: int) -> list[Claim]:
        if "*()" in self.pauses or want <= 0:
            return []
        served = [_name(lane) for lane in lanes]
        room: dict[str, float] = {lane["lane"]: lane["limit"] for lane in lanes if "limit" in lane}
        weights = {lane["lane"]: lane["weight"] for lane in lanes if "weight" in lane}

        def take(lane: str, most: int) -> list[str]:
            taken: list[str] = []
            while (limit := int(min(most, room.get(lane, most))) - len(taken)) > 0:
                ids, looked = self.pop(lane, limit)
                taken += [id for id in ids if self._start(id, worker, ttl_ms)]
                if looked < limit:
                    break
            room[lane] = room.get(lane, math.inf) - len(taken)
            return taken

        started = self._start_suspect(worker, served, room, ttl_ms)
        if weights:
            started += self._share(self.workers[worker], weights, want - len(started), take)
        else:
            for lane in served:
                started += take(lane, want - len(started))
        claims = []
        for id in started:
            self.token += 1
            self.workers[worker].running[id] = self.token
            claims.append((id, self.token, self.tasks[id].tries))
        return claims

    def _share(
        self, member: Worker, weights: dict[str, int], want: int, take: Callable[[str, int], list[str]]
    ) -> list[str]:
        """The lane that had least goes next, one task at a time. One that has no task leaves its turn to the others,
        and does not have it later.
        """
        had = {lane: member.passes.get(lane, 0) for lane in weights}
        some, started, last = list(weights), list[str](), ""
        while some and len(started) < want:
            last = min(some, key=lambda lane: (had[lane], lane != last))
            if taken := take(last, 1):
                started, had[last] = started + taken, had[last] + SHARE // weights[last]
            else:
                some.remove(last)
        least = min((had[lane] for lane in some), default=math.inf)
        member.passes = {lane: int(max(had[lane] - least, 0)) for lane in weights}
        return started

    def _start(self, id: str, worker: str, ttl_ms: int) -> bool:
        task = self.tasks[id]
        if self.expire_if_late(task, ttl_ms):
            return False
        pause_id = self._pause_of(task)
        if pause_id:
            task.state, task.pause = "held", pause_id
            self.held.setdefault(pause_id, []).append(id)
            self.counters["held"] += 1
            self.tell_watchers(task)
            return False
        task.state, task.worker, task.tries = "running", worker, task.tries + 1
        self.tell_watchers(task)
        return True

    def _start_suspect(self, worker: str, served: list[str], room: dict[str, float], ttl_ms: int) -> list[str]:
        """One quarantined task at most, and none while the worker has the one it got last."""
        if self.workers[worker].quarantined in self.workers[worker].running:
            return []
        open_lanes = {lane for lane in served if room.get(lane) != 0}
        for _, id in sorted((at, id) for id, at in self.quarantined.items())[:8]:
            task = self.tasks[id]
            if task.lane not in open_lanes or self._pause_of(task):
                self.quarantined[id] = self.now
                continue
            del self.quarantined[id]
            if self._start(id, worker, ttl_ms):
                self.workers[worker].quarantined = id
                if task.lane in room:
                    room[task.lane] -= 1
                return [id]
        return []

    def _pause_of(self, task: Task) -> str:
        def fits(pause: Pause) -> bool:
            if pause.resuming or pause.task not in (task.name, "*"):
                return False
            if not pause.argument:
                return True
            position = pause.positions.get(task.name)
            if position is not None and position < len(task.args):
                return bool(task.args[position] == pause.value)
            return bool(task.kwargs.get(pause.argument) == pause.value)

        fitting = [id for id, pause in self.pauses.items() if fits(pause)]
        # That of the task before that of its argument, before that of anybody's.
        order = {f"{task.name}()": 0, **{id: 2 for id in fitting if id.startswith("*")}}
        return min(fitting, key=lambda id: order.get(id, 1), default="")

    # Settling.

    def complete(self, worker: str, id: str, token: int, result_ttl_ms: int) -> str:
        return self._settle_one(worker, {"id": id, "token": token, "outcome": "complete"}, result_ttl_ms)

    def fail(self, worker: str, id: str, token: int, result_ttl_ms: int) -> str:
        return self._settle_one(worker, {"id": id, "token": token, "outcome": "failed"}, result_ttl_ms)

    def release(self, worker: str, id: str, token: int, result_ttl_ms: int) -> str:
        return self._settle_one(worker, {"id": id, "token": token, "outcome": "release"}, result_ttl_ms)

    def retry(self, worker: str, id: str, token: int, result_ttl_ms: int, **details: int) -> str:
        outcome = {"id": id, "token": token, "outcome": "retry", "details": details}
        return self._settle_one(worker, outcome, result_ttl_ms)

    def snooze(self, worker: str, id: str, token: int, result_ttl_ms: int, **details: int) -> str:
        outcome = {"id": id, "token": token, "outcome": "snooze", "details": details}
        return self._settle_one(worker, outcome, result_ttl_ms)

    def _settle_one(self, worker: str, outcome: dict[str, Any], ttl_ms: int) -> str:
        self._member(worker)
        answers = self._settle(worker, [outcome], ttl_ms)
        return answers[0][2] if answers else "ok"

    def _settle(self, worker: str, outcomes: list[dict[str, Any]], ttl_ms: int) -> list[tuple[str, int, str]]:
        """The outcomes that are refused, and those that became something else."""
        running, refusals = self.workers[worker].running, []
        for each in outcomes:
            id, token = each["id"], each["token"]
            if running.get(id) != token:
                refusals.append((id, token, "stale"))
                continue
            del running[id]
            task, outcome = self.tasks[id], each["outcome"]
            if outcome == "release":
                self._hand_back(task, ttl_ms, None)
            elif outcome == "unknown":
                self._leave_to_others(task, ttl_ms, **each.get("details", {}))
            elif outcome in ("retry", "snooze"):
                self._try_again(task, outcome, ttl_ms, **each.get("details", {}))
            else:
                self.end(task, outcome, ttl_ms)
                continue
            if task.state in ("aborted", "failed"):
                refusals.append((id, token, task.state))
        return refusals

    def _try_again(self, task: Task, outcome: str, ttl_ms: int, delay_ms: int = 0, max_age_ms: int = 0) -> None:
        due_at = self.now + delay_ms
        if task.abort_requested:
            self.end(task, "aborted", ttl_ms)
            return
        if outcome == "snooze":
            task.tries -= 1
        if 0 < max_age_ms < due_at - task.enqueued_at:
            self.end(task, "failed", ttl_ms)
            return
        task.lost, task.worker, task.unknown_since = 0, "", None
        self.counters["snoozed" if outcome == "snooze" else "retried"] += 1
        if delay_ms > 0:
            task.state, self.scheduled[task.id], task.due_at = "scheduled", due_at, due_at
            self.tell_watchers(task)
        else:
            self.make_ready(task)

    def _leave_to_others(self, task: Task, ttl_ms: int, max_age_ms: int = 0) -> None:
        if task.abort_requested:
            self.end(task, "aborted", ttl_ms)
            return
        task.tries -= 1
        if task.unknown_since is None:
            task.unknown_since = self.now
        waited = self.now - task.unknown_since
        rest = 1_000 if waited < 10_000 else 10_000 if waited < 60_000 else 60_000 if waited < 600_000 else 300_000
        if 0 < max_age_ms <= waited:
            self.end(task, "failed", ttl_ms)
            return
        task.lost, task.worker = 0, ""
        self.counters["unknown"] += 1
        task.due_at = self.now + rest
        task.state, self.scheduled[task.id] = "scheduled", task.due_at
        self.tell_watchers(task)

    def _hand_back(self, task: Task, ttl_ms: int, max_lost: int | None) -> None:
        """A worker no longer holds it, nor has it settled it. `max_lost`: the worker is lost."""
        task.worker = ""
        if task.abort_requested:
            self.end(task, "aborted", ttl_ms)
            return
        self.counters["released" if max_lost is None else "lost"] += 1
        task.lost += max_lost is not None
        if max_lost is not None and task.lost > max_lost:
            self.end(task, "failed", ttl_ms)
            return
        task.tries -= 1
        if task.lost >= 2:
            task.state, self.quarantined[task.id] = "queued", self.now
            self.tell_watchers(task)
        else:
            self.make_ready(task, front=True)

    # What a task tells while it runs, or just after.

    def progress(
        self, worker: str, id: str, token: int, progress: str, result_ttl_ms: int, told: list[dict[str, str]]
    ) -> str:
        task = self.tasks.get(id)
        is_held = worker in self.workers and self.workers[worker].running.get(id) == token
        if task is None or not (is_held or (task.state in FINISHED and task.worker == worker)):
            return "stale"
        task.progress = progress or task.progress
        lines = [each["text"] for each in told if not each["note"]]
        for each in told:
            if each["note"]:
                task.notes[each["note"]] = each["text"]
        task.notes = {name: value for name, value in task.notes.items() if value}
        if lines:
            log = self.logs.setdefault(id, Log(0))
            log.lines = [*log.lines, *lines][-1000:]
            log.gone_at = self.now + self._told_ms(task, result_ttl_ms)
        if task.state == "running":
            self.tell_watchers(task, tuple(part for each in told for part in (each["note"], each["text"])))
        return "ok"

    def emit(
        self, worker: str, id: str, token: int, number: int, result_ttl_ms: int, chunks: list[dict[str, str]]
    ) -> str:
        task = self.tasks.get(id)
        if task is None or worker not in self.workers or self.workers[worker].running.get(id) != token:
            return "stale"
        stream = self.streams.get(id) if task.streamed else None
        there = stream.chunks if stream else []
        known = {(each[0], each[1]) for each in there}
        total = there[-1][3] if there else 0
        added = []
        for at, each in enumerate(chunks, number):
            if (token, at) not in known:
                total += len(each["chunk"])
                added.append((token, at, task.tries, total, each["chunk"]))
        if added:
            task.streamed = True
            self.streams[id] = Stream(self.now + self._told_ms(task, result_ttl_ms), [*there, *added])
            self.tell_watchers(task)
        return "ok"

    def _told_ms(self, task: Task, result_ttl_ms: int) -> int:
        kept_ms = result_ttl_ms if task.result_ttl_ms is None else task.result_ttl_ms
        return WEEK_MS if kept_ms < 0 else max(kept_ms, HOUR_MS)

    # Signs of life.

    def heartbeat(self, worker: str, lease_ms: int, result_ttl_ms: int, max_lost: int) -> list[tuple[str, int]]:
        member = self._member(worker)
        held = sorted((id, token) for id, token in member.running.items() if self.tasks[id].abort_requested)
        member.lease_until = self.now + lease_ms
        self.promote()
        self._reap(lease_ms, result_ttl_ms, max_lost)
        for id, pause in list(self.pauses.items()):
            if pause.resuming:
                self.give_back(id, 500)
                del self.pauses[id]
                break
        self.keys = {
            key: id for key, id in self.keys.items() if self.is_unfinished(id) and self.tasks[id].unique == key
        }
        return held

    def _reap(self, lease_ms: int, ttl_ms: int, max_lost: int) -> None:
        """One worker whose lease is over; none for a while after nobody beat, but who had none even before that."""
        last = self.now if self.last_beat is None else self.last_beat
        over, missed = self.now, self.now - last - lease_ms // 2
        if missed > 0:
            if self.reap_after > last:
                self.reap_after += missed
            if self.reap_after <= self.now:
                self.reap_after, over = self.now + lease_ms, last
        if self.reap_after > self.now and over == self.now:
            over = 0
        self.last_beat = self.now
        until, worker = min((member.lease_until, name) for name, member in self.workers.items())
        if until <= over:
            self._take_from(worker, ttl_ms, max_lost)

    def _take_from(self, worker: str, ttl_ms: int, max_lost: int | None) -> None:
        for _, id in sorted((token, id) for id, token in self.workers.pop(worker).running.items()):
            self._hand_back(self.tasks[id], ttl_ms, max_lost)
        for idle in self.idle.values():
            idle.pop(worker, None)


def _name(lane: Any) -> str:
    return str(lane["lane"] if isinstance(lane, dict) else lane)


def _served(lanes: list[Any]) -> list[str]:
    """Those that more may be claimed of."""
    return [_name(lane) for lane in lanes if not (isinstance(lane, dict) and lane.get("limit") == 0)]
