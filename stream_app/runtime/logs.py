"""Logs: a worker's log as text, or as one JSON object per line.

Covers every line a worker writes: our own, those of Faust and aiokafka, and what Python would print
itself, such as warnings and uncaught errors.
"""

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any

logger = logging.getLogger("xl3m")

LIBRARIES = ("aiokafka", "faust", "mode", "stream_app")
"""The last is Faust's name for our services; our own logger is `xl3m`."""


class JsonFormatter(logging.Formatter):
    """Fields: time (UTC), level, logger, message; exception and stack where the record has them."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of ASCII, whatever the record holds."""
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
    """The message; unformatted if its arguments do not fit."""
    try:
        return record.getMessage()
    except Exception:
        return f"{record.msg} {record.args}"


def json_config(level: int) -> dict[str, Any]:
    """A configuration for `logging.config.dictConfig`: JSON lines on standard error."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": level, "handlers": ["stderr"]},
    }


def quiet_libraries(level: int) -> None:
    """At info level, log only the warnings of libraries: a worker logs its own steps itself. At
    debug level everything is logged."""
    for library in LIBRARIES if level == logging.INFO else ():
        logging.getLogger(library).setLevel(logging.WARNING)


def capture_all() -> None:
    """Send everything through the root logger's handlers: libraries that bring their own handlers,
    warnings, and uncaught errors."""
    for name in list(logging.root.manager.loggerDict):
        library = logging.getLogger(name)
        if any(isinstance(handler, logging.StreamHandler) for handler in library.handlers):
            library.handlers.clear()
            library.propagate = True
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda e: logger.critical("a thread ended", exc_info=e.exc_value)
    sys.unraisablehook = lambda e: logger.error("an error was dropped", exc_info=e.exc_value)


def _log_uncaught(kind: Any, error: BaseException, trace: Any) -> None:
    logger.critical("the worker ended", exc_info=(kind, error, trace))
