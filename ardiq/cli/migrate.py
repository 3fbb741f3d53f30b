"""Load this version's Lua library into the server: shows the plan, then carries it out.

  ardiq migrate [URL|MODULE:ATTR]           load what is missing
  ardiq migrate status [URL|MODULE:ATTR]    what is installed, missing, different or newer
  ardiq migrate show                        print the library, for `redis-cli -x FUNCTION LOAD`

Without a server named, it is that of ARDIQ_REDIS_URL, else redis://localhost:6379.
"""

import argparse
import shlex
import sys
from datetime import UTC, datetime
from typing import Any

from .. import _core
from . import DEFAULT_URL, Refusal, is_url, load_app, open_core


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "ardiq migrate [-h] [status|show] [URL|MODULE:ATTR] [--check | --dry-run | --to N | --prune] [--force]"
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--check", action="store_true", help="change nothing; exit code 1 when something is pending")
    way.add_argument("--dry-run", action="store_true", help="change nothing; show the plan")
    way.add_argument("--to", type=int, metavar="N", help="go to this version of the library, back too")
    way.add_argument("--prune", action="store_true", help="drop older libraries that no live worker uses")
    parser.add_argument("--force", action="store_true", help="even if the server evicts tasks or has a newer library")


def run(arguments: argparse.Namespace) -> int:
    action, target = _understand(arguments.words)
    if action == "show":
        sys.stdout.write(_core.library()[0])
        return 0
    core = open_core(target if is_url(target) else load_app(target).redis_url)
    status = core.migrate_status()
    if action == "status":
        _print_status(status)
        return 0
    print(f"server: {status['server']}")
    if arguments.prune:
        print("\n".join(core.migrate_prune()) or "nothing to prune")
        return 0
    if arguments.to is None:
        _print_plan(status)
    if arguments.check or arguments.dry_run:
        return 1 if status["pending"] and arguments.check else 0
    for line in core.migrate_apply(to=arguments.to, force=arguments.force):
        print(f"done: {line}")
    return 0


def _understand(words: list[str]) -> tuple[str, str]:
    action = words[0] if words and words[0] in ("status", "show") else ""
    rest = words[1:] if action else words
    if len(rest) > 1:
        raise Refusal(f"one server or app at a time, not {shlex.join(rest)}")
    return action, rest[0] if rest else DEFAULT_URL


def _print_plan(status: dict[str, Any]) -> None:
    for line in status["pending"]:
        print(f"plan: {line}")
    if not status["pending"]:
        print("plan: nothing is pending" + ("" if status["functions"] else "; scripts are loaded when first used"))


def _print_status(status: dict[str, Any]) -> None:
    print(f"server: {status['server']}{'' if status['functions'] else ', without functions: scripts instead'}")
    print(f"maxmemory-policy: {status['maxmemory_policy'] or 'not to be seen'}")
    for library in status["installed"]:
        by = f", loaded {_when(library['loaded_at'])} by Ardiq {library['package']}" if library["loaded_at"] else ""
        print(f"ardiq_v{library['version']}: {library['state']}, SHA1 {library['sha1']}{by}")
    if status["data_version"] is not None:
        print(f"data: version {status['data_version']}")
    if status["dirty"]:
        print(f"interrupted: {status['dirty']}")
    if status["lock"]:
        print(f"migrating right now: {status['lock']}")
    _print_plan(status)


def _when(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
