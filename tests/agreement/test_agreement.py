"""What is said in several places says the same: protocol, Lua, Rust, Python and the docs, each compared both ways."""

import ast
import inspect
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import render
import typed_calls

from ardiq import _core, errors
from ardiq._server import calls
from ardiq.cli import _acl, fsck
from ardiq.testing import _emulation

ROOT = render.ROOT
PROTOCOL = render.PROTOCOL
FUNCTIONS = PROTOCOL["functions"]

# Errors that are raised on this side of the server.
OWN_ERRORS = {
    "ArdiqError",
    "BadSignature",
    "BrokerError",
    "ChildrenFailed",
    "Forbidden",
    "LibraryError",
    "OutOfMemory",
    "TaskError",
}
# What Rust calls for a worker.
OF_THE_OUTBOX = {"abort_guest", "home_ended"}
"""What the library says to call in another queue; a worker carries that as it is."""
CARRIED_BY_RUST = {"join", "step", "heartbeat", "leave"}
# Single transitions that `step` is built from: for clients in other languages, and for reading.
FOR_OTHER_CLIENTS = {"claim", "complete", "retry", "snooze", "fail", "release"}
# Python asks for more in one call: `overview`, `longest_running`.
FOR_OTHER_OPERATORS = {"oldest_ready", "claims"}


def lua_files() -> Iterator[tuple[str, str, Path]]:
    for kind, folder in render.FOLDERS.items():
        for path in sorted((ROOT / "lua" / folder).glob("*.lua")):
            yield path.stem, kind, path


def calls_in_python() -> Iterator[tuple[str, ast.Call]]:
    """Every call in the package, with the path of its file; not those of the typed calls themselves."""
    for path in (ROOT / "ardiq").rglob("*.py"):
        if path != render.CALLS:
            where = path.relative_to(ROOT / "ardiq").as_posix()
            yield from ((where, node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))


def test_each_function_is_a_file_and_each_file_a_function() -> None:
    files = {name: kind for name, kind, _ in lua_files()}
    assert files == {name: function["kind"] for name, function in FUNCTIONS.items()}


@pytest.mark.parametrize("path", [pytest.param(path, id=name) for name, _, path in lua_files()])
def test_the_head_of_a_file_is_its_entry_in_the_protocol(path: Path) -> None:
    assert render.with_head(path) == path.read_text(), "run: make render"


def test_states_of_the_arrows_are_declared() -> None:
    named = {state for function in FUNCTIONS.values() for state in function["from"] + function["to"]}
    assert named - {"none"} == set(PROTOCOL["states"])


def test_the_library_registers_exactly_the_functions() -> None:
    payload, _ = _core.library()
    registered = re.findall(rf"'{PROTOCOL['library']}_(\w+)'", payload)
    assert sorted(registered) == sorted(FUNCTIONS)


def test_the_compiled_core_embeds_these_sources() -> None:
    assert (ROOT / "lua/protocol.json").read_text() == _core.PROTOCOL
    payload, _ = _core.library()
    for _, _, path in lua_files():
        assert path.read_text().strip().splitlines()[-1].strip() in payload


def test_key_names() -> None:
    text = (ROOT / "lua/lib/keys.lua").read_text()
    written = {}
    for name, literal in re.findall(r"function M\.(\w+)\(base, id\) return base \.\. '(\w+:)' \.\. id end", text):
        written[name] = literal + "<>"
    two = r"function M\.(\w+)\(base, lane, (\w+)\) return base \.\. '(\w+:)' \.\. lane \.\. ':' \.\. \2 end"
    written |= {name: literal + "<>" for name, _, literal in re.findall(two, text)}
    for name, kind, literal in re.findall(r"M\.(\w+) = (of|of_queue)\('(\w+:?)'\)", text):
        written[name] = literal + ("<>" if kind == "of" else "")
    declared = {name: re.sub("<.*>", "<>", key["pattern"]) for name, key in PROTOCOL["keys"].items()}
    assert written == declared


def test_error_codes() -> None:
    text = (ROOT / "lua/lib/errors.lua").read_text()
    assert sorted(re.findall(r"refusal\('(\w+)'", text)) == sorted(PROTOCOL["errors"])
    listed = {code for function in FUNCTIONS.values() for code in function["errors"]}
    assert listed == set(PROTOCOL["errors"])


def test_exceptions() -> None:
    classes = {
        name
        for name, value in inspect.getmembers(errors, inspect.isclass)
        if issubclass(value, errors.ArdiqError) and value.__module__ == errors.__name__
    }
    of_the_server = {error["exception"] for error in PROTOCOL["errors"].values()}
    assert classes - OWN_ERRORS == of_the_server
    assert set(errors.__all__) == classes | {"ItemErrors", "ProcessDied", "RateLimited", "Retry", "Snooze", "Suspend"}
    for code, error in PROTOCOL["errors"].items():
        assert error["exception"] == "".join(word.capitalize() for word in code.split("_"))


def test_python_calls_every_function_that_is_for_clients() -> None:
    typed = {
        node.func.attr.removesuffix("_")
        for _, node in calls_in_python()
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "calls"
    }
    others = CARRIED_BY_RUST | FOR_OTHER_CLIENTS | FOR_OTHER_OPERATORS | OF_THE_OUTBOX
    assert {"enqueue", *others} | (typed & set(FUNCTIONS)) == set(FUNCTIONS)


def test_functions_are_called_by_their_types() -> None:
    """By name go enqueues alone, whose records are batched."""
    sends = re.compile(r"(^|[._])(call|call_many|tell|ask)(_\w+)?$")
    named = {
        f"{where}:{node.lineno}"
        for where, node in calls_in_python()
        if sends.search(ast.unparse(node.func))
        for argument in node.args
        if isinstance(argument, ast.Constant) and argument.value in set(FUNCTIONS) - {"enqueue"}
    }
    assert not named


def test_commands_and_keys_of_the_server_are_named_in_its_room_alone() -> None:
    """Elsewhere what moves tasks of ArdiQ 1.2 knows that version's keys, and in tests something stands for a server."""
    raw = {
        where
        for where, node in calls_in_python()
        if isinstance(node.func, ast.Attribute) and node.func.attr == "command"
    }
    allowed = {"_client/from_1_2.py", "testing/_inline.py"}
    assert {where for where in raw if not where.startswith("_server/")} == allowed


def test_fsck_can_explain_every_finding() -> None:
    page, place = ((ROOT / "lua" / path).read_text() for path in ("queries/fsck_page.lua", "lib/place.lua"))
    text = page + place
    found = set(re.findall(r"add\('(\w+)',", text)) | set(re.findall(r"and '(\w+)'", text))
    found |= set(re.findall(r"return '(\w+)'", place))
    found |= {f"ghost_in_{place}" for place in re.findall(r"(\w+) = \{ '[A-Z]SCAN'", page)}
    found |= {"ghost_in_ready", "unknown_state", *re.findall(r"finding = '(\w+)'", page)}
    assert found - {"queued", "entry", "group", "ended"} == set(fsck.FINDINGS)


def test_rendered_tables() -> None:
    texts = [path.read_text() for path in render.DOCUMENTS]
    assert {name for text in texts for name in re.findall(r"<!-- rendered: (.+?) -->", text)} == set(render.tables())
    for text in texts:
        assert render.rendered(text) == text, "run: make render"


def test_typed_calls_are_those_of_the_protocol() -> None:
    assert render.CALLS.read_text() == typed_calls.rendered(PROTOCOL), "run: make render"


def test_counters_are_answered_as_they_are_declared() -> None:
    _, _, after = (ROOT / "lua/lib/stats.lua").read_text().partition("M.COUNTERS = {")
    counters = re.findall(r"'(\w+)'", after.partition("}")[0])
    assert FUNCTIONS["stats"]["reply"]["record"] == ["minutes_ago", *counters]
    assert " ".join(counters) in PROTOCOL["keys"]["stats"]["holds"]


def test_what_is_asked_of_the_counters_is_still_kept() -> None:
    kept_s = re.search(r"MINUTE_TTL_S = (\d+)", (ROOT / "lua/lib/stats.lua").read_text())
    assert kept_s
    assert {int(kept_s[1]) // 60} == {calls.STATS_MINUTES_MOST, calls.TASK_STATS_MINUTES_MOST}


@pytest.mark.parametrize(
    ("function", "argument", "path", "table"),
    [
        ("enqueue", "options", "transitions/enqueue.lua", "OPTIONS"),
        ("step", "details", "transitions/step.lua", "DETAILS"),
        ("step", "lanes", "lib/lane.lua", "FIELDS"),
        ("schedule_put", "definition", "lib/schedule.lua", "FIELDS"),
    ],
)
def test_fields_of_objects_are_those_that_the_protocol_names(
    function: str, argument: str, path: str, table: str
) -> None:
    _, _, after = (ROOT / "lua" / path).read_text().partition(f"local {table} = {{")
    known = set(re.findall(r"(\w+) = '", after.partition("}")[0]))
    entry = FUNCTIONS[function]
    fields = [*entry["args"], *entry.get("tail", {}).get("record", [])]
    about = next(field["about"] for field in fields if field["name"] == argument)
    values = {"once", "all", "code", "unknown", "limited"}
    assert set(re.findall(r"`(\w+)`", about)) - values == known


def test_every_transition_says_whether_a_repeat_is_harmless() -> None:
    for name, function in FUNCTIONS.items():
        if function["kind"] == "transition":
            harmless = function["repeat"].startswith("harmless") and "not so" not in function["repeat"]
            assert function["idempotent"] is harmless, name


def test_callers_are_those_whom_acl_makes_users_for() -> None:
    for name, function in FUNCTIONS.items():
        assert function["callers"], name
        assert set(function["callers"]) <= set(_acl.ROLES), name
        if name in CARRIED_BY_RUST | FOR_OTHER_CLIENTS:
            assert function["callers"] == ["worker"], name


def test_every_key_has_an_owner() -> None:
    assert {key["owner"] for key in PROTOCOL["keys"].values()} == set(render.OWNERS)


def test_every_function_has_fixtures() -> None:
    folders = {path.name for path in (ROOT / "fixtures").iterdir() if path.is_dir()}
    assert folders == set(FUNCTIONS)


def test_the_changelog_tells_of_this_version() -> None:
    assert f"## {version('ardiq').partition('.dev')[0]}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_emulation_has_the_commands_of_the_library_and_no_others() -> None:
    used = {command for function in FUNCTIONS for command in _core.commands(function)}
    # Options of ZADD; and what stands in the scripts of servers without functions.
    assert {command.decode() for command in _emulation._library().commands} == used - {"INCR", "NX", "SETRANGE"}
