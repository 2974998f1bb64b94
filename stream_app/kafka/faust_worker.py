"""Worker: Faust's worker, which runs an app until a signal and then ends within a time limit.

`Worker(app, loglevel="info").execute_from_commandline()` ends the process with Faust's exit code.
"""

import logging
import signal
from typing import TYPE_CHECKING, Any

import faust

from stream_app.runtime.cleanup import SIGNALLED
from stream_app.runtime.log_throttle import RepeatFilter

if TYPE_CHECKING:
    from stream_app.kafka.faust_app import App

logger = logging.getLogger("xl3m")


class Worker(faust.Worker):
    """The first signal starts the shutdown and its time limit; the second ends the process at once.

    model: a description of the model, for the log.
    """

    app: "App"
    model = ""

    async def on_start(self) -> None:
        """Called by Faust when logging is set up."""
        logger.info("model %s; group %s", self.model, self.app.conf.id)
        await super().on_start()

    def install_signal_handlers(self) -> None:
        """Add handlers to those of the event loop, which do not run while the loop is stuck. A
        closed terminal ends the worker as SIGTERM does, unless `nohup` started it."""
        super().install_signal_handlers()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal_number)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            self.loop.add_signal_handler(signal.SIGHUP, self._on_sigterm)
            signal.signal(signal.SIGHUP, self._on_signal_number)

    def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
        """Called by Faust when the handlers exist. Repeated lines are throttled: when Kafka is down
        for a night, its client's retries must not fill the disk."""
        super().on_setup_root_logger(logger, level)
        repeats = RepeatFilter()
        for handler in logger.handlers:
            handler.addFilter(repeats)

    async def _stop_on_signal(self, signal: signal.Signals) -> None:
        """Called by mode once for all signals."""
        logger.info(
            "stopping (%s): within %g s; a second signal ends it at once",
            signal.name, self.app.shutdown.seconds,
        )  # fmt: skip
        await super()._stop_on_signal(signal)

    def _on_signal_number(self, number: int, frame: Any) -> None:
        if self.app.shutdown.requested:
            self.app.shutdown.end_now(SIGNALLED + number)
        self.app.shutdown.begin()
