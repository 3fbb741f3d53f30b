"""A verdict as people read it."""

import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from ardiq import _core

from . import limited
from .jobs import LEASE_MS
from .plan import PRODUCERS, WORKERS
from .site import ROOT
from .verdict import Verdict

_SHOWN = 8
_OF_FAULTS = (
    "For each fault: how often it was injected, the longest time before the next fault in which no execution began\n"
    "anywhere, and how soon one began once a server or a new primary served again:"
)
GUIDE = ROOT / "docs" / "reliability.md"


def wrongs(verdict: Verdict) -> Iterator[str]:
    """A line for each thing that must not be."""
    for what, cases in verdict.wrong.items():
        if cases:
            more = f" … {len(cases) - _SHOWN} more" if len(cases) > _SHOWN else ""
            yield f"  WRONG: {what}: {len(cases)}: {', '.join(map(str, cases[:_SHOWN]))}{more}"


def write(verdicts: dict[str, Verdict], digests: dict[str, str], took_s: float) -> Path:
    """Have the guide show this run, in place of the one it shows. Where it is."""
    scripts = ", ".join(f"{topology} `{digest}`" for topology, digest in digests.items())
    arguments = shlex.join(argument for argument in sys.argv[1:] if argument != "--write")
    text = f"""## A run

```sh
python -m tests.chaos {arguments}
```

This was {_core.VERSION} with Python {platform.python_version()}, in {took_s / 60:.0f} minutes;
{WORKERS} workers and {PRODUCERS} producers had a machine with {os.cpu_count()} cores.
The lease was {LEASE_MS / 1000:g} s.
On the cluster and the Sentinel set, one of the producers used `durability="replicated"`.
The checksums of the scripts: {scripts}.

{table(verdicts)}

"""
    guide = GUIDE.read_text()
    shown, count = re.subn(r"## A run\n.*?(?=^## )", lambda _: text, guide, flags=re.DOTALL | re.MULTILINE)
    assert count == 1, f"{GUIDE} has no section `A run`"
    GUIDE.write_text(shown)
    return GUIDE


def table(verdicts: dict[str, Verdict]) -> str:
    """All of it, in Markdown: a column for each topology."""
    every = list(verdicts.values())
    lines = [_row("", *verdicts), _row("---", *("---:" for _ in every))]

    def row(name: str, cells: list[object]) -> None:
        lines.append(_row(name, *(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)))

    row("faults injected", [sum(v.faults.values()) for v in every])
    row("tasks acknowledged", [v.acknowledged for v in every])
    row("executions", [v.executions for v in every])
    for what in every[0].wrong:
        row(f"**{what}**", [len(v.wrong[what]) for v in every])
    row("lost, because the server lost its data", [v.lost_with_data for v in every])
    row(
        '… of those enqueued with `durability="replicated"`',
        [f"0 of {v.replicated:,}" if v.replicated else "-" for v in every],
    )
    row("results seen by their producers", [v.seen for v in every])
    row("result seen, then replaced, because the server lost its data", [v.changed_with_data for v in every])
    row("failed calls that may have enqueued", [v.maybe for v in every])
    row("… and did", [v.maybe_ran for v in every])
    row("failed calls that did not enqueue", [v.refused for v in every])
    row("dead letters after their workers died", [v.poisoned for v in every])
    row("executed more than once", [sum(v.repeated.values()) for v in every])
    for cause in sorted({cause for v in every for cause in v.repeated}):
        row(f"… {cause}", [v.repeated[cause] for v in every])
    for name, cells in _of_limits(every):
        row(name, cells)
    row("workflows acknowledged", [v.flows.acknowledged for v in every])
    row("… of all that were started: completed, failed", [f"{v.flows.completed:,}, {v.flows.failed:,}" for v in every])
    row("… executions compared with those that they follow", [v.flows.followed for v in every])
    row("… results of maps compared with what was passed on", [v.flows.calls for v in every])
    bound = LEASE_MS / 1000 + 1
    row(f"worker killed: its tasks ran again within (bound {bound:g} s)", [f"{v.rerun_s:.2f} s" for v in every])
    row("… those with limits, when it was their turn again", [f"{v.rerun_limited_s:.2f} s" for v in every])
    kinds = list(dict.fromkeys(kind for v in every for kind in v.faults))
    lines += [
        "",
        _OF_FAULTS,
        "",
        _row("fault", *(f"{name}: times, longest silence" for name in verdicts), "work resumed within"),
    ]
    lines.append(_row("---", *("---:" for _ in range(len(every) + 1))))
    for kind in sorted(kinds):
        cells = [f"{v.faults[kind]} x {v.silence.get(kind, 0.0):.2f} s" if v.faults[kind] else "-" for v in every]
        resumed = [v.resumed[kind] for v in every if kind in v.resumed]
        lines.append(_row(kind, *cells, f"{max(resumed):.2f} s" if resumed else "-"))
    return "\n".join(lines)


def _of_limits(every: list[Verdict]) -> Iterator[tuple[str, list[object]]]:
    yield "looks at the limits", [v.observed.looks for v in every]
    yield "… starts under limits that they saw", [v.observed.starts for v in every]
    for name, limit in {**limited.AT_ONCE, **limited.TUNED}.items():
        said = limit if name in limited.AT_ONCE else f"{limit}, or what is put"
        cells = [f"{v.observed.most[name]}, {v.bodies.most.get(name, 0)}" for v in every]
        yield f"… `{name}` (limit {said}): most leases at once, most bodies", list(cells)
    yield "… above a limit that had just been lowered", [v.observed.lowered for v in every]
    waited = [f"{v.observed.beside_idle_s:.2f} s" for v in every]
    yield "… longest that what could start waited beside an idle worker", list(waited)
    yield "executions under limits", [v.bodies.starts for v in every]
    yield "… not judged, for their slots were others' by then", [v.bodies.lapsed for v in every]
    yield "… compared with those before of their key, which has an order", [v.bodies.in_order for v in every]
    yield "… told that their limit is used up, far from all faults", [v.bodies.closed for v in every]
    yield "… closer together than their rate by", [f"{v.bodies.closer_s:.2f} s" for v in every]
    yield "all drained after the last task within", [f"{v.drained_s:.1f} s" for v in every]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
