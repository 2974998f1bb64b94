"""Assignment: what Faust is told of full queues, and what is done when partitions come and go.

Knows Faust's flow of events and the order of its signals; not what events say.
"""

import logging
from functools import partial
from typing import Any, cast

import faust
from faust.types import TP

from stream_app.ingest.partitions import Assignment, Broker
from stream_app.ingest.queues import PartitionBuffers
from stream_app.ingest.tokens import Ingest
from stream_app.kafka.consumer import Consumer
from stream_app.runtime.retry import Health, retry_forever
from stream_app.scoring.scorer import Scorer

logger = logging.getLogger("xl3m")


def on_full_queues(app: faust.App, queues: PartitionBuffers) -> None:
    """A full queue is to Faust what a full queue of its own would be, for its partition alone.

    Not `pause_partitions`: that passes over what was polled already, and its offsets would count
    as a gap. What Faust clears its queues of was not handed out yet; what is in the queues was,
    and Faust would wait for it to be acknowledged.
    """
    queues.pause = lambda partition: app.consumer.on_buffer_full(TP(*partition))
    queues.resume = lambda partition: app.consumer.on_buffer_drop(TP(*partition))

    def abandon(event: Any) -> None:
        if event.poll:
            app.consumer.unacked.discard(event.poll.message)

    queues.discard = abandon
    app.flow_control.manage_queue(cast(Any, queues))


def on_assignment(
    app: faust.App, ingest: Ingest, asked: Assignment, scoring: Scorer, health: Health
) -> None:
    """When partitions come and go, so do the streams to score.

    Faust awaits this signal after the new assignment is known and before it seeks to the
    committed offsets and lets events through. On its `on_partitions_assigned` it does not
    wait: events would come before their partition is known to be owned.
    """

    async def assigned(sender: Any, **_: Any) -> None:
        check = partial(cast(Consumer, app.consumer).check, app.consumer_generation_id)

        async def take(partitions: Assignment) -> tuple[list[str], list[str]]:
            check()
            broker = cast(Broker, app.consumer)
            return await partitions.assign(app.consumer.assignment(), broker, check)

        await retry_forever(health, "assignment", take, asked)
        owned, lost = await retry_forever(health, "assignment", take, ingest.partitions)
        ingest.forget()
        for partition in lost:
            scoring.streams.disown(await ingest.store.streams(partition))
        for partition in owned:
            scoring.streams.own(await ingest.store.streams(partition))
        is_missing = cast(Consumer, app.consumer).missing_topics() or not ingest.partitions.topics
        why = "there is no topic yet" if is_missing else "others have them all"
        logger.info("ready: reads %s", ", ".join(sorted(owned)) or f"no partition, since {why}")

    signal: Any = app.on_rebalance_complete
    signal.connect(assigned, weak=False)
