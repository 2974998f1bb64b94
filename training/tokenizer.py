"""The bundled model's tokenizer: byte-level BPE in which digits and spaces are always single.

A value then has the same tokens after "=", ": " or a space and in the answer, so that it can be
copied exactly.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from training.corpus.entities import Source
from training.corpus.formats import ALL
from training.corpus.generate import TEMPLATE, Level
from training.corpus.passages import Passage, add_record, any_fact, ask

SPECIAL = ["<s>", "</s>", "<pad>"]
PIECES = r"\d|\s|\p{L}+|[^\s\d\p{L}]"


def real_text(data: Path) -> Iterator[str]:
    """The real text below the folder, all under permissive licences; missing parts are skipped."""
    for meetings in sorted(data.glob("qmsum/*.jsonl")):
        for line in meetings.read_text("utf-8").splitlines():
            yield from (turn["content"] for turn in json.loads(line)["meeting_transcripts"])
    for log in sorted(data.glob("logs/*.log")):
        yield from log.read_text("utf-8").splitlines()[:4000]
    for chat in sorted(data.glob("irc/*.gz")):
        with gzip.open(chat, "rt", encoding="utf-8", errors="replace") as lines:
            yield from (line for _, line in zip(range(20_000), lines, strict=False))


def real_lines(data: Path | None, most: int = 160) -> tuple[str, ...]:
    """Lines of real text, truncated, as noise between records."""
    texts = real_text(data) if data else iter(())
    return tuple(text.strip()[:most] for text in texts if text.strip())


def made_text(rng: Random, passages: int) -> Iterator[str]:
    """Generated records and questions."""
    source = Source(rng)
    level = Level(0, ALL, filler=0.4, stamps=0.5, phrasings=99)
    for _ in range(passages):
        passage = Passage()
        for _ in range(8):
            add_record(source, level, passage)
        ask(source, level, passage, any_fact(source, level, passage) if passage.records else None)
        yield "".join(piece.text for piece in passage.pieces)


def in_pieces() -> Any:
    """The pre-tokenizer for learning merges: no merge crosses a piece's boundary."""
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(PIECES), "isolated"), in_bytes()])


def in_bytes() -> Any:
    """The pre-tokenizer for applying merges. They only join English letters or the bytes of one
    character, so the tokens are the same without pieces, in half the time."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def build(texts: Iterator[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Learns the merges, and returns the tokenizer."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = in_pieces()
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=SPECIAL, initial_alphabet=alphabet
    )
    core.train_from_iterator(texts, trainer)
    core.pre_tokenizer = in_bytes()
    make: Any = PreTrainedTokenizerFast
    return make(  # type: ignore[no-any-return]
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        model_max_length=512,
        clean_up_tokenization_spaces=False,
    )


def main() -> None:
    """Trains and saves the tokenizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocabulary", type=int, default=2048)
    args = parser.parse_args()
    rng = Random(0)

    def texts() -> Iterator[str]:
        yield from real_text(args.data)
        yield from made_text(rng, 4000)

    tokenizer = build(texts(), args.vocabulary)
    tokenizer.save_pretrained(args.out)
    print(len(tokenizer), tokenizer.tokenize(TEMPLATE))


if __name__ == "__main__":
    main()
