"""Logs: a worker's records as text, or as one JSON object a line for machines to read.

All records, Faust's and aiokafka's as well, and what Python itself would print: warnings and
errors nobody caught. Knows records; not what they tell.
"""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any

logger = logging.getLogger("xl3m")

LIBRARIES = ("aiokafka", "faust", "mode", "stream_app")
"""The last is Faust's name for our services; our own lines are those of `xl3m`."""


class JsonLines(logging.Formatter):
    """time (UTC), level, logger, message, and exception where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, in ASCII, whatever the record holds."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info and record.exc_info[0]:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = record.stack_info
        return json.dumps(fields)


def _message(record: logging.LogRecord) -> str:
    """A record whose arguments do not fit is still worth a line."""
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg} {record.args}"


def as_json(level: int) -> dict[str, Any]:
    """What `logging.config.dictConfig` is to be given for JSON lines on standard error."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonLines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": level, "handlers": ["stderr"]},
    }


def quieten(level: int) -> None:
    """At info level the libraries' own steps are left out: of what they begin and end a worker says
    what matters itself. Their warnings stay, and at debug level all they say."""
    for library in LIBRARIES if level == logging.INFO else ():
        logging.getLogger(library).setLevel(logging.WARNING)


def take_over() -> None:
    """Have everything go through the root's handlers: records of libraries that bring their own,
    warnings, and errors that nobody caught."""
    for name in list(logging.root.manager.loggerDict):
        library = logging.getLogger(name)
        if any(isinstance(handler, logging.StreamHandler) for handler in library.handlers):
            library.handlers.clear()
            library.propagate = True
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda e: logger.critical("a thread ended", exc_info=e.exc_value)
    sys.unraisablehook = lambda e: logger.error("an error was dropped", exc_info=e.exc_value)


def _uncaught(kind: Any, error: BaseException, trace: Any) -> None:
    logger.critical("the worker ended", exc_info=(kind, error, trace))
