"""Load this version's Lua library into the server: shows the plan, then carries it out.

ardiq migrate [URL|MODULE:ATTR]           load what is missing
ardiq migrate status [URL|MODULE:ATTR]    what is installed, missing, different or newer
ardiq migrate show                        print the library, for `redis-cli -x FUNCTION LOAD`
"""

import argparse
import shlex
import sys
from typing import Any

from .. import _core
from . import DEFAULT_URL, Refusal, is_url, load_app, open_core


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("words", nargs="*", metavar="[status|show] [URL|MODULE:ATTR]", help=argparse.SUPPRESS)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--check", action="store_true", help="change nothing; exit code 1 when something is pending")
    way.add_argument("--dry-run", action="store_true", help="change nothing; show the plan")
    way.add_argument("--prune", action="store_true", help="remove library versions that no live worker uses")
    parser.add_argument("--to", type=int, metavar="N", help="go to this version of the library, back too")
    parser.add_argument(
        "--allow-eviction",
        action="store_true",
        help="accept a server that may evict tasks when its memory is full",
    )


def run(arguments: argparse.Namespace) -> int:
    action, target = _understand(arguments.words)
    if action == "show":
        payload, _ = _core.library()
        sys.stdout.write(payload)
        return 0
    core = open_core(target if is_url(target) else load_app(target).redis_url)
    status = core.migrate_status()
    if action == "status":
        _print_status(status)
        return 0
    if arguments.prune:
        return _print_lines(core.migrate_prune(), "nothing to prune")
    pending = status["pending"]
    if arguments.check or arguments.dry_run:
        _print_lines(pending, "nothing is pending")
        return 1 if pending and arguments.check else 0
    return _print_lines(core.migrate_apply(to=arguments.to, force=arguments.allow_eviction), "nothing was pending")


def _understand(words: list[str]) -> tuple[str, str]:
    action = words[0] if words and words[0] in ("status", "show") else ""
    rest = words[1:] if action else words
    if len(rest) > 1:
        raise Refusal(f"one server or app at a time, not {shlex.join(rest)}")
    return action, rest[0] if rest else DEFAULT_URL


def _print_lines(lines: list[str], otherwise: str) -> int:
    print("\n".join(lines or [otherwise]))
    return 0


def _print_status(status: dict[str, Any]) -> None:
    for name, value in status.items():
        print(f"{name}: {value}")
