"""End a pause of an app's queue, and return the tasks it held. Takes the arguments that `ardiq pause` was given.

ardiq resume MODULE:ATTR                             the whole queue
ardiq resume MODULE:ATTR --task send                 tasks of a name
ardiq resume MODULE:ATTR --arg customer_id=42        tasks with that argument
"""

import argparse
import asyncio

from . import open_app
from ._arguments import refusing
from ._output import print_json, show
from .pause import configure_words as configure
from .pause import read_argument, told, what

__all__ = ["configure", "run"]


def run(arguments: argparse.Namespace) -> int:
    app = open_app(arguments)
    argument = read_argument(arguments.arg)
    with refusing():
        found = asyncio.run(app.resume(arguments.task, argument=argument))
    text = what(app.queue_name, arguments)
    if arguments.json:
        print_json(told(app.queue_name, arguments.task, argument, found))
    else:
        show(f"resumed {text}" if found else f"no such pause: {text}; `ardiq status` lists them")
    return 0 if found else 1
