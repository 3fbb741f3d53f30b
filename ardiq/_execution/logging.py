"""Logging as `ardiq run` sets it up, where the program itself does not."""

import importlib
import json
import logging
import logging.config
import select
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..logs import JsonFormatter, running_fields

log = logging.getLogger("ardiq")

_TEXT = "%(asctime)s %(process)d %(levelname)s %(message)s"
_PATIENCE_MS = 1000
_PAGE = 4096


class Setup(NamedTuple):
    """What is logged, and how."""

    format: Literal["text", "json"] = "text"
    level: int = logging.INFO
    """Of the program, where it says nothing of that itself."""
    own_level: int | None = None
    """Of Ardiq; None: as the program's."""
    file: str | None = None
    """A configuration that counts instead, and whatever the program says."""


def is_set_up() -> bool:
    """Whether the program has somewhere to log to: then that is its own affair."""
    handlers = [*logging.getLogger().handlers, *log.handlers]
    return any(not isinstance(handler, logging.NullHandler) for handler in handlers)


def set_up(setup: Setup) -> bool:
    """Log like this, unless the program has its own way already; once its modules are imported.

    Returns:
        False when it has.

    Raises:
        ValueError: what is wrong with the file.
    """
    log.disabled = False  # `dictConfig` mutes the loggers that it does not name, unless it is told not to
    is_own = is_set_up()
    if setup.file is not None:
        _read(setup.file)
    elif not is_own:
        handler = Stderr()
        handler.setFormatter(JsonFormatter() if setup.format == "json" else logging.Formatter(_TEXT))
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(setup.level)
    if setup.own_level is not None:
        log.setLevel(setup.own_level)
    return setup.file is not None or not is_own


def levels() -> dict[str, int]:
    """From which level on this process logs, by logger; the root one is ""."""
    known = list(logging.root.manager.loggerDict.items())  # a thread may add one meanwhile
    loggers = {name: each for name, each in known if isinstance(each, logging.Logger)}
    return {"": logging.root.level, **{name: each.level for name, each in loggers.items() if each.level}}


def handle(record: dict[str, Any]) -> None:
    """Log what a child process did as if it were said here; `record`: as `ToWorker` sends it."""
    logger = logging.getLogger(record["name"])
    if logger.isEnabledFor(record["levelno"]):
        logger.handle(logging.makeLogRecord(record))


class ToWorker(logging.Handler):
    """Of a child process: sends each record to its worker, as what can travel of it."""

    def __init__(self, send: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._send = send
        self._texts = logging.Formatter()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            exc_text = record.exc_text
            if record.exc_info and not exc_text:
                exc_text = self._texts.formatException(record.exc_info)
            texts = {"msg": record.getMessage(), "args": None, "exc_info": None, "exc_text": exc_text}
            # Those of the task come first: what `extra=` says counts.
            self._send({**running_fields(), **vars(record), **texts})
        except Exception:
            self.handleError(record)


class Stderr(logging.StreamHandler[Any]):
    """Standard error, as long as somebody takes what is written there.

    A pipe that nobody empties would hold up whoever logs, the event loop too. After a second of that, lines are
    dropped until it moves again, and counted.
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._dropped = 0
        self._poll: Any = select.poll()
        try:
            self._poll.register(self.stream.fileno(), select.POLLOUT)
        except (OSError, ValueError):  # no file of the system: nothing to wait for
            self._poll = None

    def emit(self, record: logging.LogRecord) -> None:
        if self._dropped and self._has_room():
            text = f"{self._dropped} lines were dropped: nobody read standard error"
            self._dropped = 0
            self.emit(logging.LogRecord(log.name, logging.WARNING, __file__, 0, text, None, None))
        try:
            text = self.format(record) + self.terminator
        except Exception:
            return self.handleError(record)
        data = text.encode(self.stream.encoding or "utf-8", "backslashreplace")
        for at in range(0, len(data), _PAGE):
            if not self._has_room():
                self._dropped += 1
                return None
            self._write(data[at : at + _PAGE])
        return None

    def _write(self, data: bytes) -> None:
        buffer = getattr(self.stream, "buffer", None)
        try:
            if buffer is None:
                self.stream.write(data.decode(errors="replace"))
            else:
                buffer.write(data)
            self.stream.flush()
        except (OSError, ValueError):  # it is closed
            return

    def _has_room(self) -> bool:
        if self._poll is None:
            return True
        return any(events & select.POLLOUT for _, events in self._poll.poll(0 if self._dropped else _PATIENCE_MS))


def _read(name: str) -> None:
    """Configure logging by a file: a dictionary in JSON, TOML or, with PyYAML, YAML; else an INI for `fileConfig`."""
    path, kind = Path(name), Path(name).suffix.lower()
    try:
        if kind in (".json", ".toml", ".yaml", ".yml"):
            config = _dictionary(path, kind)
            # Loggers that the app made on import go on.
            logging.config.dictConfig({"version": 1, "disable_existing_loggers": False} | config)
        else:
            with path.open() as file:
                logging.config.fileConfig(file, disable_existing_loggers=False)
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror or error}") from None
    except Exception as error:
        causes = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
        raise ValueError(f"{name}: {': '.join(causes)}") from error


def _dictionary(path: Path, kind: str) -> dict[str, Any]:
    text = path.read_text()
    if kind == ".json":
        config = json.loads(text)
    elif kind == ".toml":
        config = tomllib.loads(text)
    else:
        try:
            config = importlib.import_module("yaml").safe_load(text)
        except ModuleNotFoundError:
            raise ValueError("YAML needs PyYAML, which is not installed; use JSON or TOML instead") from None
    if not isinstance(config, dict):
        raise TypeError("it must contain an object for `logging.config.dictConfig`")
    return config
