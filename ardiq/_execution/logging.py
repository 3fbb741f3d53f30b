"""Logging as `ardiq run` configures it, if the program itself does not."""

import importlib
import json
import logging
import select
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ..logs import DevFormatter, JsonFormatter, running_fields

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger("ardiq")

_TEXT = "%(asctime)s %(process)d %(levelname)s %(message)s"
_PATIENCE_MS = 1000
_PAGE = 4096


class Setup(NamedTuple):
    """How to log."""

    format: Literal["text", "json", "dev"] = "text"
    level: int = logging.INFO
    """The root logger's level, if the program does not set it."""
    own_level: int | None = None
    """The level of Ardiq's loggers; None: the same as the program's."""
    file: str | None = None
    """A configuration to use instead, even if the program has one."""


def is_set_up() -> bool:
    """Whether the program has configured logging itself."""
    handlers = [*logging.getLogger().handlers, *log.handlers]
    return any(not isinstance(handler, logging.NullHandler) for handler in handlers)


def set_up(setup: Setup) -> bool:
    """Configure logging, unless the program has done so; to be called once its modules are imported.

    Returns:
        False if it has.

    Raises:
        ValueError: what is wrong with the file.
    """
    log.disabled = False  # `dictConfig` mutes the loggers that it does not name, unless it is told not to
    is_own = is_set_up()
    if setup.file is not None:
        _read(setup.file)
    elif not is_own:
        handler = Stderr()
        kinds = {"json": JsonFormatter, "dev": DevFormatter}
        handler.setFormatter(kinds[setup.format]() if setup.format in kinds else logging.Formatter(_TEXT))
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(setup.level)
    if setup.own_level is not None:
        log.setLevel(setup.own_level)
    return setup.file is not None or not is_own


def levels() -> dict[str, int]:
    """The levels from which this process logs, by logger; the root is ""."""
    known = list(logging.root.manager.loggerDict.items())  # a thread may add one in the meantime
    loggers = {name: each for name, each in known if isinstance(each, logging.Logger)}
    return {"": logging.root.level, **{name: each.level for name, each in loggers.items() if each.level}}


def handle(record: dict[str, Any]) -> None:
    """Log a record of a child process as if it came from here; `record`: as `ToWorker` sends it."""
    logger = logging.getLogger(record["name"])
    if logger.isEnabledFor(record["levelno"]):
        logger.handle(logging.makeLogRecord(record))


class ToWorker(logging.Handler):
    """In a child process: sends each record to its worker, as far as it can be sent."""

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
            # The task's first, so that `extra=` overrides them.
            self._send({**running_fields(), **vars(record), **texts})
        except Exception:
            self.handleError(record)


class Stderr(logging.StreamHandler[Any]):
    """Standard error that never blocks for long. A pipe that nobody reads would block whatever logs, the event loop,
    too. After a second, lines are dropped and counted until the pipe is read again.
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self._dropped = 0
        self._poll: Any = select.poll()
        try:
            self._poll.register(self.stream.fileno(), select.POLLOUT)
        except (OSError, ValueError):  # not a file of the system: nothing to wait for
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
    """Configure logging from a file: a dictionary in JSON, TOML or, with PyYAML, YAML; else an INI file for
    `fileConfig`.
    """
    import logging.config
    from pathlib import Path

    path, kind = Path(name), Path(name).suffix.lower()
    try:
        if kind in (".json", ".toml", ".yaml", ".yml"):
            config = _dictionary(path, kind)
            # Loggers that the app created on import stay enabled.
            logging.config.dictConfig({"version": 1, "disable_existing_loggers": False} | config)
        else:
            with path.open() as file:
                logging.config.fileConfig(file, disable_existing_loggers=False)
    except OSError as error:
        raise ValueError(f"{name}: {error.strerror or error}") from None
    except Exception as error:
        causes = [str(error), *([str(error.__cause__)] if error.__cause__ else [])]
        raise ValueError(f"{name}: {': '.join(causes)}") from error


def _dictionary(path: "Path", kind: str) -> dict[str, Any]:
    text = path.read_text()
    if kind == ".json":
        config = json.loads(text)
    elif kind == ".toml":
        import tomllib

        config = tomllib.loads(text)
    else:
        try:
            config = importlib.import_module("yaml").safe_load(text)
        except ModuleNotFoundError:
            raise ValueError("YAML needs PyYAML, which is not installed; use JSON or TOML instead") from None
    if not isinstance(config, dict):
        raise TypeError("it must contain an object for `logging.config.dictConfig`")
    return config
