"""What a command takes from the environment: each of its options has a variable."""

import argparse
import os

from ._arguments import Refusal

_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def add_variables(parser: argparse.ArgumentParser) -> None:
    """Name the variable of each option in its help. Options have no default of their own: None is what is not given."""
    options = [action for action in parser._actions if action.option_strings and action.help != argparse.SUPPRESS]
    options = [action for action in options if action.dest != "help"]
    for action in options:
        action.help = f"{action.help} [{variable(action)}]"
    parser.set_defaults(options=options)


def variable(option: argparse.Action) -> str:
    """`ARDIQ_MAX_TASKS` for `--max-tasks`."""
    return "ARDIQ_" + option.option_strings[-1].strip("-").replace("-", "_").upper()


def fill(arguments: argparse.Namespace) -> None:
    """Take what was not given from the environment; a list is separated by commas, an empty text is none.

    Raises:
        Refusal: a variable makes no sense.
    """
    for option in arguments.options:
        name = variable(option)
        text = os.environ.get(name, "").strip()
        if text and getattr(arguments, option.dest) is None:
            try:
                setattr(arguments, option.dest, _read(option, text))
            except (argparse.ArgumentTypeError, ValueError) as error:
                raise Refusal(f"{name}: {error}") from None


def _read(option: argparse.Action, text: str) -> object:
    if option.nargs == 0:
        if text.lower() not in (*_YES, *_NO):
            raise ValueError(f"expected 1 or 0, got {text!r}")
        return text.lower() in _YES
    read = option.type if callable(option.type) else str
    if isinstance(option, argparse._AppendAction):
        return [read(part.strip()) for part in text.split(",") if part.strip()]
    value = read(text)
    if option.choices is not None and value not in option.choices:
        raise ValueError(f"expected one of {', '.join(option.choices)}, got {text!r}")
    return value


def words(arguments: argparse.Namespace, *, without: tuple[str, ...] = ()) -> list[str]:
    """The options as they are, for another process to be given."""
    given = []
    for option in arguments.options:
        value = getattr(arguments, option.dest)
        name = option.option_strings[-1]
        if value is None or value is False or option.dest in without:
            continue
        if value is True:
            given.append(name)
        else:
            given += [f"{name}={_word(each)}" for each in (value if isinstance(value, list) else [value])]
    return given


def _word(value: object) -> str:
    return f"{value[0]}={value[1]}" if isinstance(value, tuple) else str(value)
