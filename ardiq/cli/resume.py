"""End a pause of an app's queue, and give back what it held. Takes the words that `ardiq pause` was given.

ardiq resume MODULE:ATTR                             the whole queue
ardiq resume MODULE:ATTR --task send                 tasks of a name
ardiq resume MODULE:ATTR --arg customer_id=42        tasks with that argument
"""

import argparse
import asyncio

from . import load_app
from .pause import configure, read_argument, what

__all__ = ["configure", "run"]


def run(arguments: argparse.Namespace) -> int:
    app = load_app(arguments.app)
    found = asyncio.run(app.resume(arguments.task, argument=read_argument(arguments.arg)))
    text = what(app.queue_name, arguments)
    print(f"resumed {text}" if found else f"no such pause: {text}; `ardiq status` lists them")
    return 0 if found else 1
