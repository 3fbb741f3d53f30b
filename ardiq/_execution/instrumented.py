"""What instruments are told of attempts."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import instruments
from .._values import headers as _headers
from .._values.encodings import from_json
from .._values.signing import without_signature
from ..instruments import Attempt, Guarded, Instrument, Outcome
from .endings import Claim, Ending

if TYPE_CHECKING:
    from .._client.queue import QueueContext
    from .._client.registry import Registered

Carried = Sequence[tuple[str, dict[str, str]]]


class Instrumented:
    """The attempts of one worker that instruments know of, by token."""

    def __init__(self, queue: "QueueContext") -> None:
        self._queue = queue
        self._url = queue.server.shown_url
        self._instruments = instruments.active
        self._known: dict[int, tuple[Attempt, list[tuple[Instrument, Any]]]] = {}

    def slots(self, change: int) -> None:
        """Tell that there are more slots, or fewer."""
        for instrument in self._instruments:
            with Guarded(instrument, "slots"):
                instrument.slots(self._queue.name, change)

    def started(self, entry: "Registered", claim: Claim, wait_s: float | None) -> None:
        """Tell that an attempt begins; in its context."""
        if entry.task is None:
            return
        queue = self._queue
        executor = "loop" if entry.is_async else "process" if entry.process else "thread"
        attempt = Attempt(
            claim[0], claim[2], queue.name, self._url, claim[7], claim[8], claim[9] / 1000, wait_s,
            queue.settings.worker_id, executor, self._headers(claim),
        )  # fmt: skip
        states: list[tuple[Instrument, Any]] = []
        for instrument in self._instruments:
            with Guarded(instrument, "started"):
                states.append((instrument, instrument.started(attempt)))
        self._known[claim[1]] = (attempt, states)

    def ended(self, claim: Claim, outcome: Outcome) -> None:
        """Tell how it ended, once; from any thread."""
        attempt, states = self._known.pop(claim[1], (None, ()))
        if attempt is None:
            return
        for instrument, state in reversed(states):
            with Guarded(instrument, "ended"):
                instrument.ended(attempt, state, outcome)

    def judged(self, ending: Ending) -> None:
        """Tell how it ended, if it did not succeed."""
        delay_ms = (ending.details or {}).get("delay_ms")
        self.ended(ending.claim, Outcome(ending.outcome, ending.run_s, ending.error, ending.asked, delay_ms))

    def carried(self, token: int) -> Carried:
        """What the function needs where it runs, if that is elsewhere."""
        found: list[tuple[str, dict[str, str]]] = []
        for instrument, state in self._known[token][1] if token in self._known else ():
            with Guarded(instrument, "carried"):
                if instrument.enter and (fields := instrument.carried(state)) is not None:
                    found.append((instrument.enter, fields))
        return found

    def _headers(self, claim: Claim) -> dict[str, Any]:
        if not claim[6]:
            return {}
        with Guarded(self, "headers"):
            return _headers.unpack(self._queue.codec, without_signature(from_json(claim[6])))
        return {}
