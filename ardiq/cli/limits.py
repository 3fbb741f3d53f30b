"""Look at the limits of an app's queue, or change them at run time.

ardiq limits list MODULE:ATTR                                list limits, and the keys for which something was put
ardiq limits show MODULE:ATTR 'customer(42)'                 one of them, or one key of it
ardiq limits put MODULE:ATTR partner --concurrency 2         change it for all workers at once
ardiq limits put MODULE:ATTR 'customer(42)' --rate 10 --per 1m --burst 5
ardiq limits remove MODULE:ATTR partner                      let what code declares count again
"""

import argparse
import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from .._server import commands
from ..limits import Rate, said, slowed
from . import open_app
from ._arguments import (
    Refusal,
    add_actions,
    among,
    did_you_mean,
    duration_ms,
    json_argument,
    refusing,
    word,
)
from ._output import Part, Table, age, many, print_json, show
from ._plain import plain_limit

if TYPE_CHECKING:
    from ..app import Ardiq
    from ..inspection import LimitInfo

_MOST_KEYS = 20
_ACTIONS = {
    "list": "list limits, and the keys for which something was put",
    "show": "one of them, or one key of it",
    "put": "change it for all workers at once; what code declares counts where nothing is given",
    "remove": "remove what was put; if nothing was, the limit, until code declares it again",
}


def configure(parser: argparse.ArgumentParser) -> None:
    for action, chosen in add_actions(parser, _ACTIONS):
        if action != "list":
            chosen.add_argument("name", type=word, metavar="LIMIT", help="its name; of one key: 'customer(42)'")
        if action == "put":
            _configure_put(chosen)
        json_argument(chosen)


def _configure_put(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--concurrency", type=int, metavar="N", help="how many attempts run at once; 0: none starts")
    parser.add_argument("--rate", type=float, metavar="N", help="how many start in the time that --per says")
    parser.add_argument("--per", type=duration_ms, metavar="TIME", help="that time: 1, 500ms, 1m (default: 1s)")
    parser.add_argument("--burst", type=int, metavar="N", help="how many of these may start at once (default: 1)")
    parser.add_argument("--max-waiting", type=int, metavar="N", help="how many tasks may wait in a line of it")
    parser.add_argument(
        "--adaptive",
        type=partial(duration_ms, least=0),
        metavar="TIME",
        help="a RateLimited halves what it lets start, which is back after that time from nothing; 0: not adaptive",
    )


def run(arguments: argparse.Namespace) -> int:
    app = open_app(arguments)
    with refusing():
        if arguments.action == "list":
            return asyncio.run(_list(app, arguments.json))
        if arguments.action == "show":
            return asyncio.run(_show(app, arguments.name, arguments.json))
        if arguments.action == "put":
            return asyncio.run(_put(app, arguments))
        return asyncio.run(_remove(app, arguments.name, arguments.json))


async def _list(app: "Ardiq", as_json: bool) -> int:
    found = await app.limits.list()
    if as_json:
        print_json([plain_limit(limit) for limit in found])
    elif not found:
        show(
            "there are no limits: those of the code are declared when a worker starts, or a task is enqueued with them"
        )
    else:
        show(_table(found, commands.now_ms(app.context.server.core)))
    return 0


async def _show(app: "Ardiq", name: str, as_json: bool) -> int:
    limit = await app.limits.show(name)
    if limit is None:
        return await _missing(app, name, as_json)
    buckets = [] if limit.key is not None else [each for each in await app.limits.buckets(limit.name) if each.key]
    if as_json:
        print_json({**plain_limit(limit), "buckets": [plain_limit(each) for each in buckets]})
        return 0
    now_ms = commands.now_ms(app.context.server.core)
    parts: list[Part] = [_table([limit], now_ms)]
    if buckets:
        more = f", {_MOST_KEYS} of them" if len(buckets) > _MOST_KEYS else ""
        parts += [f"{many(len(buckets), 'key')} in use{more}:", _table(buckets[:_MOST_KEYS], now_ms)]
    show(*parts)
    return 0


async def _put(app: "Ardiq", arguments: argparse.Namespace) -> int:
    if arguments.rate is None and (arguments.per is not None or arguments.burst is not None):
        raise Refusal("--per and --burst belong to --rate N")
    per_ms, burst = arguments.per or 1000, 1 if arguments.burst is None else arguments.burst
    rate = None if arguments.rate is None else Rate(arguments.rate, per=per_ms / 1000, burst=burst)
    known = [limit.name for limit in await app.limits.list()]
    await app.limits.put(
        arguments.name,
        concurrency=arguments.concurrency,
        rate=rate,
        max_waiting=arguments.max_waiting,
        adaptive=None if arguments.adaptive is None else arguments.adaptive / 1000 or False,
    )
    name = arguments.name.partition("(")[0]
    if name not in known and not arguments.json:
        show(f"nobody has declared {name!r} yet{did_you_mean(name, known)}")
    return await _show(app, arguments.name, arguments.json)


async def _remove(app: "Ardiq", name: str, as_json: bool) -> int:
    if not await app.limits.remove(name):
        return await _missing(app, name, as_json)
    if as_json:
        print_json({"name": name, "changed": True})
    else:
        left = await app.limits.show(name)
        show(f"{name}: removed; " + (f"now it lets start {_said(left)}" if left else "nothing limits its tasks now"))
    return 0


async def _missing(app: "Ardiq", name: str, as_json: bool) -> int:
    if as_json:
        print_json({"name": name, "changed": False})
    else:
        known = [named(limit) for limit in await app.limits.list()]
        if name.partition("(")[0] in known:
            show(f"nothing was put for {name}: what its limit says counts")
        else:
            show(f"there is no limit {name!r}{did_you_mean(name, known) or among(known)}")
    return 1


def named(limit: "LimitInfo") -> str:
    """A limit, or one key of it, as people write it."""
    return limit.name if limit.key is None else f"{limit.name}({limit.key})"


def _said(limit: "LimitInfo") -> str:
    if limit.concurrency == 0:
        return "nothing: it is closed"
    parts = [said(limit.concurrency, limit.rate) or "any number"]
    if limit.max_waiting is not None:
        parts.append(f"{limit.max_waiting:,} wait in a line")
    return ", ".join([*parts, *(["adaptive"] if limit.recovery_ms else [])])


def _now(limit: "LimitInfo") -> str:
    """What is left of one that was slowed."""
    return "" if limit.share == 1 else f"; now {said(*slowed(limit.concurrency, limit.rate, limit.share))}"


def _table(limits: Sequence["LimitInfo"], now_ms: int) -> Table:
    rows = [
        [
            named(limit),
            _said(limit) + (" (put)" if limit.overridden else "") + _now(limit),
            f"{limit.running:,}",
            f"{limit.waiting:,}{'' if limit.exact else '+'}",
            "" if limit.opens_at is None or limit.concurrency == 0 else f"in {age(max(0, limit.opens_at - now_ms))}",
        ]
        for limit in limits
    ]
    return Table(["limit", "lets start", "running", "waiting", "opens"], rows)
