"""Trains the bundled model from scratch: random tokens, then short passages, then the full window.

Lookup is learned all at once or not at all, so a step of the curriculum is left only when its
answers are right.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from stream_app.runtime.malloc import configure_malloc
from training.attention import NAME
from training.batch import Batch
from training.batch_loader import REPEATS, BatchLoader
from training.corpus.generate import TEMPLATE
from training.curriculum import STEPS
from training.optimizers import optimizers
from training.tokenizer import real_lines

LLAMA: Any = LlamaForCausalLM  # the library's own types do not describe it
COPYING = 300
"""Steps of repeats only, at the start."""
LEAST, RECENT = 60, 50
"""The fewest batches per step, and the window of the running mean of its accuracy."""
SAVED = 2.0
"""Minutes between checkpoints."""
HEAD = 32
"""Many small heads: a name's tokens are gathered by one head per position."""
K = 2
"""How many segments the model answers from best, by `benchmarks needle` with 1, 2 and 4."""
GUESS = 0.3
"""The weight of an answer without evidence: it is random, only its distribution is learned."""


def new_model(vocabulary: int, width: int, layers: int) -> Any:
    """An untrained Llama of the smallest size that learns lookup."""
    make: Any = LlamaConfig
    config = make(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // HEAD,
        num_key_value_heads=width // HEAD,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        xl3m_question_template=TEMPLATE,
        xl3m_k=K,
        xl3m_measure="entropy",
    )
    return LLAMA(config)


def precision(device: str) -> Any:
    """bfloat16 where the hardware multiplies it fast, else float32."""
    cpu = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = device == "cuda" or bool(cpu.get("amx_bf16") or cpu.get("avx512_bf16"))
    return torch.autocast(device, dtype=torch.bfloat16, enabled=fast)


def losses(model: Any, batch: Batch, device: str) -> tuple[Tensor, Tensor]:
    """The loss, and the share of known answers' tokens that are right.

    Only one token in five of ordinary text is predicted: it is mostly random, and costs time. The
    choice is made on the CPU, before the batch is copied: on a GPU it would force a wait.
    """
    kinds = batch.kinds[:, 1:].flatten()
    some = (kinds == 0) & (torch.rand(kinds.shape) < 0.2)
    places = ((kinds > 0) | some).nonzero()[:, 0].to(device, non_blocking=True)
    batch = batch.to(device)
    states = model.model(**batch.inputs(), use_cache=False).last_hidden_state[:, :-1]
    goals, kinds = (each[:, 1:].flatten()[places] for each in (batch.ids, batch.kinds))
    logits = model.lm_head(states.flatten(0, 1)[places]).float()
    each = cross_entropy(logits, goals, reduction="none")
    known, text = kinds == 1, kinds == 0
    weight = known + GUESS * (kinds == 2)
    right = (logits.argmax(-1) == goals) & known
    return _mean(each, weight) + 0.1 * _mean(each, text), _mean(right, known)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean; zero if all weights are zero."""
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)


class Trainer:
    """The state of a training run, and its steps."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args, self.device = args, "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(args.tokenizer or args.out)
        if args.start:
            self.model = LLAMA.from_pretrained(args.start, dtype=torch.float32).train()
        else:
            self.model = new_model(len(self.tokenizer), args.width, args.layers)
        self.model.to(self.device).set_attn_implementation(NAME)
        self.optimizers = optimizers(self.model, args.rate)
        self.step, self.level = 0, args.level if args.start else REPEATS
        self.accuracy, self.since, self.right = 0.0, 0, torch.zeros(())
        if args.resume:
            self.restore(args.resume)
        seed, real = args.seed + self.step, real_lines(args.data)
        self.lesson = BatchLoader(self.tokenizer, seed, real, args.times)
        self.lesson.set_step(self.level)
        self.batches = self.lesson.batches(args.writers)
        self.autocast = precision(self.device)

    def restore(self, path: Path) -> None:
        """Resumes from a checkpoint."""
        state = torch.load(path, weights_only=True, map_location=self.device)
        self.model.load_state_dict(state["model"])
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.step, self.level = state["step"], state["level"]

    def save(self) -> None:
        """Writes the checkpoint and the model as it is shipped."""
        state = {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "step": self.step,
            "level": self.level,
        }
        torch.save(state, written := self.args.checkpoint.with_suffix(".new"))
        written.replace(self.args.checkpoint)
        shipped = LLAMA(self.model.config).to(torch.bfloat16)
        shipped.load_state_dict(self.model.state_dict())
        shipped.config.dtype = torch.bfloat16
        shipped.save_pretrained(self.args.out)
        self.tokenizer.save_pretrained(self.args.out)

    def learn(self, done: float) -> Tensor:
        """One step, and its loss; `done` is the share of the time that has passed."""
        slow = min(1.0, (self.step + 1) / 100) * min(1.0, max(0.02, (1 - done) / 0.4))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.args.rate * slow
        with self.autocast:
            loss, right = losses(self.model, next(self.batches), self.device)
        self.model.zero_grad()
        cast(Any, loss).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self.advance(float(self.right))  # of the previous step: this one still runs on the GPU
        self.right = right
        return loss.detach()

    def advance(self, accuracy: float) -> None:
        """Updates the accuracy; moves to the next step when it suffices, or at the end."""
        self.since += 1
        self.accuracy += (accuracy - self.accuracy) / min(RECENT, self.since + 1)
        if self.level == REPEATS:
            passed = self.step >= COPYING
        else:
            right = self.since > LEAST and self.accuracy > STEPS[self.level].gate
            passed = self.level + 1 < len(STEPS) and (right or self.since >= self.args.patience)
        if passed:
            self.level, self.since, self.accuracy = self.level + 1, 0, 0.0
            self.lesson.set_step(self.level)


def main() -> None:
    """Trains for the time given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--tokenizer", type=Path, help="folder of the tokenizer, if elsewhere")
    parser.add_argument("--data", type=Path, help="folder of real text, for noise")
    parser.add_argument("--checkpoint", type=Path, default=Path("checkpoint.pt"))
    parser.add_argument("--log", type=Path, default=Path("training.csv"))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("--start", type=Path, help="folder of a model to go on from")
    parser.add_argument("--level", type=int, default=0, help="with --start: the step to begin with")
    parser.add_argument("--patience", type=int, default=4000, help="batches a step has at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--writers", type=int, default=0, help="processes that prefetch batches")
    parser.add_argument("--times", type=int, default=1, help="factor for the batch size")
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--rate", type=float, default=2e-3)
    args = parser.parse_args()
    configure_malloc()
    torch.set_num_threads(args.threads)
    run(Trainer(args), args)


def run(trainer: Trainer, args: argparse.Namespace) -> None:
    """Trains until the time is up, with a log line every 50 steps and regular checkpoints."""
    start, bar, saved = time.monotonic(), tqdm(unit="step", mininterval=5), 0.0
    with args.log.open("a", newline="") as file:
        log = csv.writer(file)
        while (spent := (time.monotonic() - start) / 60) < args.minutes:
            loss = trainer.learn(spent / args.minutes)
            bar.update()
            if trainer.step % 50 == 0:
                row = (trainer.step, trainer.level, f"{loss:.4f}", f"{trainer.accuracy:.4f}")
                log.writerow((*row, f"{spent:.2f}"))
                file.flush()
                bar.set_postfix_str(f"level {row[1]} loss {row[2]} accuracy {row[3]}")
            if spent - saved > SAVED:
                trainer.save()
                saved = spent
    trainer.save()


if __name__ == "__main__":
    main()
