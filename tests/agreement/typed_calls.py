"""Renders `ardiq/_server/calls.py` from `lua/protocol.json`: a typed function for each one of the library."""

import builtins
import keyword
import subprocess
import sys
from textwrap import fill, indent
from typing import Any, NamedTuple

HEAD = '''"""The functions of the library as typed calls, generated from `lua/protocol.json` by `make render`.

Each function here makes a `Call`, which is sent by `ask` (blocking) or by `ask` and `tell` of a channel, and knows how
its reply is read. What is paid for each task does not come this way: enqueues travel as records of `Channel.submit` and
`submit_many`, claims and outcomes in the steps of the compiled core.
"""

from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple

from .replies import (
{imports}
)'''
ARGUMENTS = {"string": "Text", "json": "Text", "int": "int"}
# By the types that the protocol names: in Python, and what reads it.
KINDS = {
    "text": ("str", "text"),
    "texts": ("list[str]", "texts"),
    "int": ("int", "number"),
    "flag": ("bool", "flag"),
    "bytes": ("bytes", "raw"),
    "json_object": ("dict[str, Any]", "json_object"),
    "json_texts": ("list[str]", "json_texts"),
    "json_ints": ("list[int]", "json_numbers"),
}
IMPORTED = sorted(
    {"Call", "Record", "Text", "answers", "page", "table", "word", *(reader for _, reader in KINDS.values())},
    key=lambda name: (not name[0].isupper(), name),
)


class Field(NamedTuple):
    """A value of a reply: its name, its type, and the name of what reads it."""

    name: str
    kind: str
    reader: str


class Module:
    """The text of the module, and the classes that its functions need."""

    def __init__(self, protocol: dict[str, Any]) -> None:
        self._functions: dict[str, dict[str, Any]] = protocol["functions"]
        self._kinds = {field: kind for kind, fields in protocol["reply_types"].items() for field in fields}
        self._classes: dict[str, str] = {}
        self._shapes: dict[str, list[str]] = {}

    def render(self) -> str:
        functions = [self._function(name, function) for name, function in self._functions.items()]
        limits = [
            f"{name.upper()}_MOST: Final = {function['tail']['max']}\n"
            f'"""How many records one call of `{name}` takes."""'
            for name, function in self._functions.items()
            if "tail" in function
        ]
        limits += [
            f"{name.upper()}_{argument['name'].upper()}_MOST: Final = {argument['max']}\n"
            f'"""The largest `{argument["name"]}` of `{name}`."""'
            for name, function in self._functions.items()
            for argument in function["args"]
            if argument.get("max", 1) > 1
        ]
        head = HEAD.replace("{imports}", "".join(f"    {name},\n" for name in IMPORTED).rstrip())
        return "\n\n".join([head, *limits, *self._classes.values(), *functions])

    def _function(self, name: str, function: dict[str, Any]) -> str:
        parameters = [f"{argument['name']}: {ARGUMENTS[argument['type']]}" for argument in function["args"]]
        sent = [argument["name"] for argument in function["args"]]
        if tail := function.get("tail"):
            kind, values = self._tail(name, tail)
            parameters.append(f"{tail['name']}: Iterable[{kind}]")
            sent.append(values)
        kind, read = self._reply(name, function["reply"])
        args = f"({', '.join(sent)}{',' if len(sent) == 1 else ''})"
        return "\n".join(
            [
                f"def {_python_name(name)}({', '.join(['*', *parameters] if parameters else [])}) -> Call[{kind}]:",
                _docstring(f"{function['summary']}\n\nReplies {function['reply']['about']}."),
                f'    return Call("{name}", {args}, {read})',
            ]
        )

    def _tail(self, name: str, tail: dict[str, Any]) -> tuple[str, str]:
        """The type of the records that a call takes, and the values to send."""
        fields = [Field(field["name"], ARGUMENTS[field["type"]], "") for field in tail["record"]]
        if len(fields) == 1:
            return fields[0].kind, f"*{tail['name']}"
        if tail["row"] not in self._classes:  # else it is replied, too
            self._class(tail["row"], f"A record of `{name}`.", fields)
        return tail["row"], f"*(value for record in {tail['name']} for value in record)"

    def _reply(self, name: str, reply: dict[str, Any]) -> tuple[str, str]:
        """The type of a reply, and what reads it."""
        answer = _answer(reply)
        if "map" in reply:
            kind, reader = KINDS[reply["map"]]
            return f"dict[str, {kind}]", f"table({reader})"
        if "each" in reply:
            return f"list[{answer.kind} | Exception]", "answers"
        if "is" in reply:
            return KINDS[reply["is"]]
        if "header" in reply:
            return self._page(name, reply)
        if "record" in reply:
            return self._records(name, reply)
        return answer.kind, answer.reader

    def _page(self, name: str, reply: dict[str, Any]) -> tuple[str, str]:
        """A reply that begins with a header: a class of its own."""
        fields = [_answer(reply) if field == "answer" else self._field(field) for field in reply["header"]]
        read = [f"({', '.join(field.reader for field in fields)}{',' if len(fields) == 1 else ''})"]
        if "record" in reply:
            kind, rest = self._records(name, reply)
            fields.append(Field("row" if "optional" in reply else "rows", kind, ""))
            read.append(rest)
        if "refusal" in reply:
            row = self._row(name, f"{_class_name(name)}Refusal", reply["refusal"])
            fields[len(reply["header"]) - 1] = Field("refusals", f"list[{row}]", "")
            read.append(_constant(row))
        class_name = f"{_class_name(name)}Reply"
        self._class(class_name, f"What `{name}` replies.", fields, f"page({class_name}._make, {', '.join(read)})")
        return class_name, _constant(class_name)

    def _records(self, name: str, reply: dict[str, Any]) -> tuple[str, str]:
        """The type of the records of a reply, and what reads them."""
        if len(reply["record"]) == 1:
            return KINDS["texts"]
        row = self._row(name, reply["row"], reply["record"])
        if "optional" in reply:
            return f"{row} | None", f"{_constant(row)}.optional"
        return f"list[{row}]", f"{_constant(row)}.rows"

    def _row(self, name: str, class_name: str, names: list[str]) -> str:
        fields = [self._field(field) for field in names]
        readers = ", ".join(field.reader for field in fields)
        about = f"A record of the reply of `{name}`."
        self._class(class_name, about, fields, f"Record({class_name}._make, ({readers}))")
        return class_name

    def _class(self, name: str, about: str, fields: list[Field], read: str = "") -> None:
        names = [field.name for field in fields]
        assert self._shapes.setdefault(name, names) == names, f"{name} has two shapes"
        lines = [f"class {name}(NamedTuple):", f'    """{about}"""', ""]
        lines += [f"    {field.name}: {field.kind}" for field in fields]
        lines += ["", "", f"{_constant(name)} = {read}"] if read else []
        self._classes[name] = "\n".join(lines)

    def _field(self, name: str) -> Field:
        return Field(name, *KINDS[self._kinds.get(name, "text")])


def rendered(protocol: dict[str, Any]) -> str:
    """The text of the module, formatted."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", "calls.py", "-"]
    done = subprocess.run(command, input=Module(protocol).render(), capture_output=True, text=True, check=True)
    return done.stdout


def _answer(reply: dict[str, Any]) -> Field:
    if "answers" not in reply:
        return Field("answer", *KINDS["text"])
    return Field("answer", f"Literal[{', '.join(map(repr, reply['answers']))}]", "word")


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _constant(class_name: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() else letter.upper() for letter in class_name).lstrip("_").upper()


def _python_name(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) or hasattr(builtins, name) else name


def _docstring(text: str) -> str:
    paragraphs = [fill(part, 112, break_long_words=False, break_on_hyphens=False) for part in text.split("\n\n")]
    return indent('"""' + "\n\n".join(paragraphs) + '\n"""', "    ")
