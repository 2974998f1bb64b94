"""Engine: scores segments for questions, and answers from a key context.

Texts in, scores and answers out: a model with the numbers of a `Method`, and an executor.
"""

import logging
import math
import threading
from collections.abc import Callable, Collection, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial

import torch

from xl3m_core import lexical
from xl3m_core.context import KeyContext
from xl3m_core.errors import MethodError, QuestionError
from xl3m_core.features import Features, exact
from xl3m_core.inference.batching import Row, balanced_budget
from xl3m_core.inference.executor import ModelExecutor
from xl3m_core.inference.model import LanguageModel
from xl3m_core.lexical import QuestionWords
from xl3m_core.measure import Numbers, token_log_probs
from xl3m_core.method import DEFAULT_MEASURE, Measure, Method
from xl3m_core.question import IGNORE_INDEX, EncodedQuestion
from xl3m_core.reader import Generated, Reader
from xl3m_core.relevance import SMOOTHED_MEASURES, reads_question, relevance
from xl3m_core.scoring import Scores, plan_batches, score_batches
from xl3m_core.segment import Segment
from xl3m_core.segmenter import Segmenter
from xl3m_core.smoothing import is_running_text

BATCH_TOKENS = 4096
"""Tokens of a batch, with padding. On two cores larger ones are no faster, smaller ones slower."""
JOINING_TOKENS = 8
"""A segment may have this many tokens more than its records, which were counted one by one."""

logger = logging.getLogger("xl3m")


class Engine:
    """Scores and answers with one model by one method.

    Answers, and scores of at most as many pairs as there are workers, take priority over scoring
    batches that have not begun. Any thread may call any method.
    """

    def __init__(
        self, model: LanguageModel, method: Method | None = None, batch_tokens: int = BATCH_TOKENS
    ) -> None:
        self.model = model
        self.method = method or Method.fit(model.window, k=model.k, measure=model.measure)
        if self.method.window > model.window:
            raise MethodError(
                f"the method is for a window of {self.method.window} tokens, "
                f"but the model's is {model.window}"
            )
        self._check_frame()
        self.model.probe_rows(len(model.bos) + self.method.row_tokens + JOINING_TOKENS)
        self.batch_tokens = batch_tokens
        self.shortened = 0  # segments of which only the last tokens were read
        self._submitted = ThreadPoolExecutor(2, thread_name_prefix="scores")
        self._queueing = threading.Lock()
        self.executor = ModelExecutor.on(model.device) if model.thread_safe else ModelExecutor(1)
        self.encoded = lru_cache(maxsize=4096)(self._encoded)
        self.words = lru_cache(maxsize=4096)(self._question_words)
        self.reader = Reader(model, self.method, self.executor, self)
        self.prompt = self.reader.prompt

    def _check_frame(self) -> None:
        """Raise MethodError unless a segment fits the window beside the chat template."""
        if not self.model.has_chat_template:
            return
        method, frame = self.method, sum(map(len, self.model.frame))
        needed = frame + method.segment_tokens + method.question_tokens + method.answer_tokens
        if needed > self.model.window:
            raise MethodError(
                f"chat template {frame} + segment {method.segment_tokens} + question "
                f"{method.question_tokens} + answer {method.answer_tokens} = {needed} tokens, but "
                f"the model's window is {self.model.window}: make one of them smaller"
            )

    def segmenter(self) -> Segmenter:
        """A segmenter that counts in this model's tokens."""
        method = self.method
        return Segmenter(
            self.model.count_tokens, method.segment_tokens, method.overlap_tokens, method.records
        )

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """The score of each (segment text, question) pair by the method's measure; higher is more
        relevant. It is the segment's own score, see `smoothing` for the final one.

        Rounded to 1e-4: a smaller difference comes from the other rows of the batch, and must not
        decide between segments with the same text. Equal scores are ordered by segment index.

        Raises QuestionError for a question that is empty or too long.
        """
        return [*map(self.relevance, self.features(pairs))]

    def relevance(self, features: Features) -> float:
        """The score by the method's measure."""
        return relevance(features, self.method.measure)

    def is_smoothed(self, text: str) -> bool:
        """Whether the final score of a segment with this text is a mean over its neighbours."""
        return self.method.measure in SMOOTHED_MEASURES and is_running_text(text)

    def features(
        self, pairs: Sequence[tuple[str, str]], measures: Collection[Measure] = ()
    ) -> list[Features]:
        """The raw numbers of each pair, as far as these measures need them, by default the
        method's.

        Pairs of one text with several questions cost little more than the longest of them: the
        segment goes through the model once. At most as many pairs as there are workers take
        priority over batches that have not begun.
        """
        return self._features(pairs, measures, len(pairs) <= self.executor.workers)[0]

    def submit(self, pairs: Sequence[tuple[str, str]]) -> Future[Scores]:
        """`features` in the background. Two calls are in progress at a time, in their order:
        workers that have no batch left of the first go on with the second.

        Raises RuntimeError inside an answer's `on_text`; the future raises what `features` raises.
        """
        self.executor.gate.check_outside()
        return self._submitted.submit(self.timed_features, pairs)

    def timed_features(self, pairs: Sequence[tuple[str, str]]) -> Scores:
        """`features`, and how long it took. Fewer pairs than there are workers take priority."""
        return Scores(*self._features(pairs, (), len(pairs) < self.executor.workers))

    def _features(
        self, pairs: Sequence[tuple[str, str]], measures: Collection[Measure], at_once: bool
    ) -> tuple[list[Features], float]:
        """The raw numbers, and the seconds of work, divided by the workers that shared it."""
        wanted = {*measures} or {self.method.measure}
        scored, seconds = self._numbers(pairs, wanted, at_once)
        texts = {text for text, _ in pairs} if "fused" in wanted else ()
        in_text = {text: {*lexical.words(text)} for text in texts}
        return [
            self._pair_features(question, found, wanted, in_text.get(text))
            for (text, question), found in zip(pairs, scored, strict=True)
        ], seconds

    def _pair_features(
        self,
        question: str,
        found: Numbers,
        wanted: Collection[Measure],
        in_text: Set[str] | None,
    ) -> Features:
        """in_text: the words of the segment; None if no measure needs them."""
        tokens = len(self.encoded(question).offsets) if reads_question(wanted) else math.nan
        share = math.nan if in_text is None else self.words(question).share(in_text)
        return exact(Features(*found, tokens=tokens, lexical=share))

    def _numbers(
        self, pairs: Sequence[tuple[str, str]], measures: Collection[Measure], at_once: bool
    ) -> tuple[list[Numbers], float]:
        """What the model says of each pair, and the seconds of work.

        at_once: all batches are one call, which takes priority over those that wait.
        """
        scored = [Numbers(math.nan, math.nan, math.nan)] * len(pairs)
        with self._queueing:  # otherwise a short call overtakes one that is being tokenized
            workers = 1 if at_once else self.executor.workers
            batches, tokens = plan_batches(
                self.model, self._rows(pairs), self.batch_tokens, workers
            )
            parts = [batches] if at_once and batches else [[batch] for batch in batches]
            calls = [partial(score_batches, self.model, part, measures, scored) for part in parts]
            size = tokens // max(1, len(calls))
            job = None if at_once else self.executor.submit(calls, size)
        seconds = job.results() if job else self.executor.run(calls, size)
        return scored, sum(seconds) / max(1, min(self.executor.workers, len(calls)))

    def _question_words(self, question: str) -> QuestionWords:
        """The question's words, weighted by how little the model expects them without a segment.
        `words` caches them: the model reads each question once."""
        encoded, before = self.encoded(question), self.model.bos or [0]
        (surprisals,) = self.executor.run(
            [partial(self._surprisals, tuple(before), encoded)], len(encoded.suffix)
        )
        return encoded.words(surprisals)

    def _surprisals(self, before: Sequence[int], question: EncodedQuestion) -> list[float]:
        """Minus log p, in nats, of each of the question's tokens."""
        labels = torch.tensor([question.labels])
        keep = len(question.suffix) + 1
        predictions = self.model.logits([[*before, *question.suffix]], keep)[:, :-1]
        log_p = token_log_probs(predictions, labels.to(predictions.device))
        return (-log_p[labels != IGNORE_INDEX]).tolist()

    def budget(self, lengths: Sequence[int]) -> int:
        """How many tokens each batch gets if rows of these lengths are scored."""
        return balanced_budget(lengths, self.batch_tokens, self.executor.workers)

    def assemble(self, ranked: Sequence[Segment], question: str) -> KeyContext:
        """The key context for a question; ranked: segments, the most certain first."""
        return self.reader.assemble(ranked, question)

    def prefill(self, ranked: Sequence[Segment], question: str) -> None:
        """Read the prompt of an answer from these segments, so that `answer` is fast then."""
        self.reader.prefill(ranked, question)

    def answer(
        self, context: KeyContext, question: str, on_text: Callable[[str], None] | None = None
    ) -> Generated:
        """Answer the question from the key context: greedily, or with a span of it (see `reader`).

        on_text is called with each piece of the answer; it must not call the engine (RuntimeError).
        Raises ModelError for a context without text: the logits of all segments were NaN, or the
        question leaves no room for a segment in the window.
        """
        return self.reader.answer(context, question, on_text)

    def record_scores(self, records: Sequence[str], question: str) -> list[float]:
        """How relevant each record of a key context is, in nats a token, by the measure that reads
        the question; before batches that have not begun."""
        pairs = [(record, question) for record in records]
        found, _ = self._features(pairs, (DEFAULT_MEASURE,), at_once=True)
        return [relevance(features, DEFAULT_MEASURE) for features in found]

    def render_question(self, question: str) -> str:
        """The question in the model's template, as it stands after a segment or a context."""
        return self.model.template.replace("{question}", question)

    def suffix(self, question: str) -> tuple[int, ...]:
        """The ids after a segment: all rows of the question end with them. Raises QuestionError."""
        return self.encoded(question).suffix

    def _encoded(self, question: str) -> EncodedQuestion:
        """The question behind a segment; `encoded` caches it. Raises QuestionError."""
        if not question.strip():
            raise QuestionError("the question is empty")
        encoded = EncodedQuestion.of(self.model, question)
        if (tokens := len(encoded.suffix)) > self.method.question_tokens:
            raise QuestionError(
                f"the question takes {tokens} tokens with its template, and the method leaves it "
                f"{self.method.question_tokens} of the window's {self.model.window}: "
                "shorten it, or leave more for questions"
            )
        return encoded

    def _rows(self, pairs: Sequence[tuple[str, str]]) -> list[Row]:
        """[BOS] segment question, without the segment's first tokens if they do not fit: its
        records were counted one by one, and joined they may have a few tokens more."""
        texts = list(dict.fromkeys(text for text, _ in pairs))
        ids = dict(zip(texts, map(tuple, self.model.encode(texts)), strict=True))
        before, rows = tuple(self.model.bos), list[Row]()
        for i, (text, question) in enumerate(pairs):
            encoded = self.encoded(question)
            room = self.model.window - len(encoded.suffix) - len(before)
            if len(ids[text]) > room:
                self._note_shortened(len(ids[text]), room)
            prefix, labels = before + ids[text][-room:], encoded.labels
            if not prefix:  # nothing predicts the first token
                labels = (IGNORE_INDEX, *labels[1:])
            rows.append(Row(i, prefix, encoded.suffix, labels))
        return rows

    def _note_shortened(self, tokens: int, room: int) -> None:
        """Count a segment of which more than a few tokens are left out; log the first."""
        if tokens <= room + self.method.overlap_tokens + JOINING_TOKENS:
            return
        self.shortened += 1
        if self.shortened == 1:
            logger.warning(
                "a segment of %d tokens was cut for another model: this one reads only its last %d "
                "tokens beside the question. Further cases are not logged", tokens, room,
            )  # fmt: skip
