"""What does the operator read on stderr?

JSON lines where it is no terminal, short lines where it is. Whatever a client sent is escaped in both: one
event is one line, and no terminal sequence survives.
"""

import json
import logging
import sys
from typing import Any, Final, TextIO

from attestd.clock import rfc3339

ACCESS: Final = logging.getLogger("attestd.access")
SERVER: Final = logging.getLogger("attestd.server")
_NOTABLE: Final = ("method", "path", "status", "code", "device", "ms", "request_id", "source")


class JsonLines(logging.Formatter):
    """One object a line, ASCII only. `extra={"fields": {…}}` adds members."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": rfc3339(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        told.update(getattr(record, "fields", ()))
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


class Readable(logging.Formatter):
    """For people: the time of day, the event, and what is worth seeing."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        notable = [f"{name}={fields[name]}" for name in _NOTABLE if fields.get(name) not in (None, "")]
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        clock = self.formatTime(record, "%H:%M:%S")
        line = printable(" ".join([clock, level + record.getMessage(), *notable]))
        if record.exc_info:
            line += "\n" + "\n".join(map(printable, self.formatException(record.exc_info).splitlines()))
        return line


def printable(text: str) -> str:
    """Control characters, line separators and terminal sequences as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def set_up(stream: TextIO | None = None) -> None:
    """Send everything of this process to `stream`, by default stderr."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Readable() if stream.isatty() else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


class GunicornLog:
    """What gunicorn demands of a logger. Its own start-up chatter is told at debug level."""

    def __init__(self, cfg: Any) -> None:
        self.cfg = cfg

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg

    def critical(self, message: str, *args: Any, **kwargs: Any) -> None:
        SERVER.critical(message, *args, **kwargs)

    def error(self, message: str, *args: Any, **kwargs: Any) -> None:
        SERVER.error(message, *args, **kwargs)

    def warning(self, message: str, *args: Any, **kwargs: Any) -> None:
        SERVER.warning(message, *args, **kwargs)

    def info(self, message: str, *args: Any, **kwargs: Any) -> None:
        SERVER.debug(message, *args, **kwargs)

    def debug(self, message: str, *args: Any, **kwargs: Any) -> None:
        SERVER.debug(message, *args, **kwargs)

    def exception(self, message: str, *args: Any, **kwargs: Any) -> None:
        SERVER.exception(message, *args, **kwargs)

    def log(self, level: int, message: str, *args: Any, **kwargs: Any) -> None:
        SERVER.log(level, message, *args, **kwargs)

    def reopen_files(self) -> None:
        """There are none: stderr belongs to whoever started us."""

    def close_on_exec(self) -> None:
        """Nothing is open."""
