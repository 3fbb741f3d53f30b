"""Load this version's Lua library into the server: shows the plan, then carries it out.

  ardiq migrate [URL|MODULE:ATTR]           load what is missing
  ardiq migrate status [URL|MODULE:ATTR]    what is installed, missing, different or newer
  ardiq migrate show                        print the library, for `redis-cli -x FUNCTION LOAD`
  ardiq migrate --from-1.2 MODULE:ATTR      move what ArdiQ 1.2 left in the app's queue into this version's
  ardiq migrate --acl [URL|MODULE:ATTR]     print the users a server needs, with no more rights than they need

A library serves the whole server; what was applied is recorded under the prefix of the app, or under --prefix.
--prune looks for workers under every prefix.

If you name no server, it is the one in ARDIQ_REDIS_URL, else redis://localhost:6379.
"""

import argparse
import shlex
import sys
from typing import Any

from .. import _core
from .._values import options as _options
from .._values.urls import unsecret
from . import _acl, is_url, load_app, open_core
from ._arguments import DEFAULT_URL, Refusal, Suggestions, json_argument, prefix_argument, refusing
from ._output import moment, print_json, teller


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "ardiq migrate [-h] [status|show] [URL|MODULE:ATTR] [--check | --dry-run | --to N | --prune] [--force] [--json]"
        "\n       ardiq migrate --from-1.2 MODULE:ATTR [--queue NAME]… [--check | --dry-run] [--force] [--json]"
        "\n       ardiq migrate --acl [URL|MODULE:ATTR] [--queue NAME]…"
    )
    what = "what to show, and the server or app (default: load what is missing)"
    parser.add_argument(
        "words", nargs="*", choices=Suggestions(("status", "show")), metavar="status|show|URL|MODULE:ATTR", help=what
    )
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--check", action="store_true", help="change nothing; exit code 1 when something is pending")
    way.add_argument("--dry-run", action="store_true", help="change nothing; show the plan")
    way.add_argument("--to", type=int, metavar="N", help="migrate to this version of the library, forward or back")
    way.add_argument("--prune", action="store_true", help="drop older libraries that no live worker uses")
    way.add_argument(
        "--acl", action="store_true", help="print users for producers, workers, operators and viewers; change nothing"
    )
    parser.add_argument(
        "--queue",
        action="append",
        default=[],
        metavar="NAME",
        help="--acl: only this queue; --from-1.2: this one instead of the app's own,\n"
        "by its name in 1.2: {jobs} is moved to jobs; may be repeated",
    )
    parser.add_argument(
        "--from-1.2", dest="from_1_2", action="store_true", help="move tasks and results that ArdiQ 1.2 left in Redis"
    )
    prefix_argument(parser)
    parser.add_argument(
        "--force",
        action="store_true",
        help="even if the server evicts tasks or has a newer library, or if workers of ArdiQ 1.2 are alive,\n"
        "or if --prune cannot see the queues of other prefixes",
    )
    json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    action, target = _understand(arguments)
    if arguments.from_1_2:
        from . import _from_1_2

        return _from_1_2.run(arguments, target)
    if action == "show":
        sys.stdout.write(_core.library()[0])
        return 0
    app = None if is_url(target) else load_app(target)
    if app is not None and arguments.prefix is not None:
        raise Refusal(f"--prefix is for URLs; {target} has its own")
    prefix = app.prefix if app else arguments.prefix or "ardiq"
    core = open_core(app.redis_url if app else target, prefix=prefix)
    if arguments.acl:
        lines = _acl.lines(core, prefix, arguments.queue)
        print_json(lines) if arguments.json else print("\n".join(lines))
        return 0
    status = core.migrate_status()
    if action == "status":
        if arguments.json:
            print_json(status)
        else:
            _print_status(status)
        return 0
    told: dict[str, Any] = {"server": status["server"]}
    say = teller(arguments.json)
    say(f"server: {status['server']}")
    if arguments.prune:
        told["done"] = core.migrate_prune(force=arguments.force)
        say("\n".join(told["done"]) or "nothing to prune")
    else:
        if arguments.to is None:
            told["pending"] = status["pending"]
            say("\n".join(_plan(status)))
        told["done"] = []
        if not (arguments.check or arguments.dry_run):
            told["done"] = core.migrate_apply(to=arguments.to, force=arguments.force)
            for line in told["done"]:
                say(f"done: {line}")
    if arguments.json:
        print_json(told)
    return int(arguments.check and bool(status["pending"]))


def _understand(arguments: argparse.Namespace) -> tuple[str, str]:
    """What to do, and with which server or app."""
    words: list[str] = arguments.words
    action = words[0] if words and words[0] in ("status", "show") else ""
    rest = words[1:] if action else words
    if len(rest) > 1:
        raise Refusal(f"one server or app at a time, not {shlex.join(map(unsecret, rest))}")
    if action:
        ways = ("check", "dry_run", "prune", "acl", "from_1_2", "force", *(("json",) if action == "show" else ()))
        given = [name for name in ways if getattr(arguments, name)] + (["to"] if arguments.to is not None else [])
        if given:
            raise Refusal(
                f"--{given[0].replace('from_1_2', 'from-1.2').replace('_', '-')} cannot be combined with {action}"
            )
    if arguments.acl and arguments.force:
        raise Refusal("--force cannot be combined with --acl: it changes nothing")
    if arguments.from_1_2:
        _understand_from_1_2(arguments, rest)
    elif arguments.queue and not arguments.acl:
        raise Refusal("--queue is for --acl and --from-1.2: a library serves all queues")
    for name in arguments.queue:
        with refusing("--queue"):
            _options.key_part("queue name", _options.without_braces(name) if arguments.from_1_2 else name)
    if action == "show" and rest:
        raise Refusal("show prints the library of this Ardiq: it takes no server")
    if arguments.prefix is not None:
        with refusing("--prefix"):
            _options.key_part("prefix", arguments.prefix)
    if arguments.to is not None and not 1 <= arguments.to <= _core.PROTOCOL_VERSION:
        raise Refusal(f"this Ardiq {_core.VERSION} knows versions 1 to {_core.PROTOCOL_VERSION}, not {arguments.to}")
    return action, rest[0] if rest else DEFAULT_URL


def _understand_from_1_2(arguments: argparse.Namespace, rest: list[str]) -> None:
    for name in ("prune", "acl"):
        if getattr(arguments, name):
            raise Refusal(f"--{name} cannot be combined with --from-1.2")
    if arguments.to is not None:
        raise Refusal("--to cannot be combined with --from-1.2")
    if len(rest) != 1 or is_url(rest[0]):
        raise Refusal("--from-1.2 needs the app, as MODULE:ATTR: it knows the lanes, and how to read arguments")


def _plan(status: dict[str, Any]) -> list[str]:
    if (data := status["data_version"] or 0) > _core.PROTOCOL_VERSION:
        return [f"plan: none; the data is of version {data}, which this Ardiq does not understand"]
    if status["pending"]:
        return [f"plan: {line}" for line in status["pending"]]
    return ["plan: nothing is pending" + ("" if status["functions"] else "; scripts are loaded when first used")]


def _print_status(status: dict[str, Any]) -> None:
    print(f"server: {status['server']}")
    if not status["functions"]:
        print(f"no functions, using scripts: {status['no_functions']}")
    print(f"maxmemory-policy: {status['maxmemory_policy'] or 'unknown'}")
    for library in status["installed"]:
        by = f", loaded {moment(library['loaded_at'])} by Ardiq {library['package']}" if library["loaded_at"] else ""
        print(f"ardiq_v{library['version']}: {library['state']}, SHA1 {library['sha1']}{by}")
    if status["data_version"] is not None:
        print(f"data: version {status['data_version']}")
    if status["dirty"]:
        print(f"interrupted: {status['dirty']}")
    if status["lock"]:
        print(f"migrating right now: {status['lock']}")
    print("\n".join(_plan(status)))
