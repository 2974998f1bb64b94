"""A worker without Kafka, with the metrics that it exports."""

from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from stream_app.monitoring.http import MonitoringServer
from stream_app.monitoring.memory import MemorySampler
from stream_app.monitoring.metrics import Metrics
from stream_app.queries.answering import Answering
from stream_app.queries.prefetch import PromptPrefetcher
from stream_app.runtime.retry import Health
from stream_app.scoring.scorer import Scorer
from stream_app.settings import Settings
from stream_app.store.state import Commit, Committed, QuestionRecord
from stream_app.store.store import StreamStore
from tests.support.fakes import PLENTY, HashEngine


class MonitoredWorker:
    """A worker without Kafka, and its metrics."""

    def __init__(self, redis: Redis) -> None:
        self.engine, self.health = HashEngine(), Health()
        self.store = StreamStore(redis, health=self.health)
        self.scorer = Scorer(
            self.engine,
            self.store,
            PLENTY,
            on_step=lambda fill, seconds: self.metrics.observe_step(fill, seconds),
        )
        self.memory = MemorySampler(self.store, self.scorer.streams)
        self.metrics = Metrics(self.scorer, self.health, self.memory)
        prefetcher = PromptPrefetcher(self.engine, self.store, self.scorer)
        self.answering = Answering(
            Settings(),
            self.engine,
            self.store,
            self.scorer,
            prefetcher,
            on_answer=self.metrics.observe_answer,
        )

    async def grow(self, stream: str, segments: int, missing_offsets: int = 0) -> None:
        """Add segments to a stream that this worker owns, after that many missing offsets."""
        base = await self.store.load(stream)
        width, count = self.engine.method.segment_tokens, segments + (base.cursor.version == 0)
        text = "".join(f"{i}".rjust(width - 1, ".") + "\n" for i in range(count))
        tail, new = self.engine.segmenter().push(base.tail, text)
        assert len(new) == segments
        offset = base.cursor.version + 1
        (result,) = await self.store.commit(
            [Commit(stream, base, new, tail, "t/0", 1, offset, missing_offsets)]
        )
        assert isinstance(result, Committed)
        self.scorer.streams.on_commit(stream, result.state.cursor)
        await self.scorer.streams.refresh()

    async def set(self, stream: str, question: str = "q?") -> None:
        """A standing question."""
        qid = self.scorer.question_id(question)
        await self.store.questions.ask(stream, qid, QuestionRecord(question))
        self.scorer.streams.on_questions_changed(stream)
        await self.scorer.streams.refresh()

    def value(self, name: str, **labels: str) -> float:
        """A metric as it would be scraped now."""
        value = self.metrics.registry.get_sample_value(name, labels)
        assert value is not None, name
        return value


def monitoring_server(
    reasons: dict[str, str], registry: CollectorRegistry | None = None, port: int = 0
) -> MonitoringServer:
    """The endpoints of a worker that has these reasons not to be ready."""

    async def why_not_ready() -> dict[str, str]:
        return reasons

    return MonitoringServer("127.0.0.1", port, registry or CollectorRegistry(), why_not_ready)
