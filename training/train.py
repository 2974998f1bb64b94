"""Trains the small model from nothing: short terse passages first, the full window last.

Looking up is learnt all at once or not at all, so a step of the curriculum is left only when
its answers are right. It knows nothing of the method the model is used in.
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

from stream_app.native import bound_programs
from training.attention import NAME
from training.batch import Batch
from training.curriculum import BEFORE, DRILL, GATES, LEVELS, Writer
from training.generate import TEMPLATE
from training.memory import keep_memory
from training.optimizers import optimizers
from training.tokenizer import real_lines

LLAMA: Any = LlamaForCausalLM  # the library's own types do not describe it
TOKENS = (*[2048] * 6, 4096, 2048, 2048, 2048, 2048, 2048, 2560, 3072, 3584, 4096)
REPEATS = 300
HEAD = 32
"""Many small heads: a name's tokens are gathered by one head for each place."""
K = 1
"""Segments it reads well, as `benchmarks needle` finds, which answers from 1, 2 and 4."""
GUESS = 0.3
"""What an answer counts that nothing tells: it is chance, and only its spread is to be learnt."""


def new_model(vocabulary: int, width: int, layers: int) -> Any:
    """An untrained Llama of the smallest kind that learns to look up."""
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
    )
    return LLAMA(config)


def precision(device: str) -> Any:
    """Bfloat16 where the hardware multiplies it fast, else float32."""
    cpu = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = device == "cuda" or bool(cpu.get("amx_bf16") or cpu.get("avx512_bf16"))
    return torch.autocast(device, dtype=torch.bfloat16, enabled=fast)


def losses(model: Any, batch: Batch) -> tuple[Tensor, float, int]:
    """The loss, how many tokens of known answers are right, and how many there are.

    Of ordinary text one token in five is predicted: it is mostly chance, and costs time.
    """
    states = model.model(**batch.inputs(), use_cache=False).last_hidden_state[:, :-1]
    goals, kinds = batch.ids[:, 1:], batch.kinds[:, 1:]
    some = (kinds == 0) & (torch.rand(kinds.shape, device=kinds.device) < 0.2)
    asked = kinds > 0
    chosen = asked | some
    logits = model.lm_head(states[chosen]).float()
    each = cross_entropy(logits, goals[chosen], reduction="none")
    kind = kinds[chosen]
    known, answer = kind == 1, kind > 0
    weight = torch.where(known, 1.0, GUESS)[answer]
    loss = (each[answer] * weight).sum() / weight.sum()
    loss = loss + 0.1 * each[~answer].sum() / (~answer).sum().clamp(min=1)
    right = (logits.argmax(-1) == goals[chosen])[known].sum()
    return loss, float(right), int(known.sum())


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
        self.step, self.level, self.accuracy, self.since = 0, args.level, 0.0, 0
        if args.resume:
            self.restore(args.resume)
        self.writer = Writer(self.tokenizer, args.seed + self.step, real_lines(args.data))
        self.autocast = precision(self.device)

    def restore(self, path: Path) -> None:
        """Goes on from a checkpoint."""
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
        torch.save(state, self.args.checkpoint)
        shipped = LLAMA(self.model.config).to(torch.bfloat16)
        shipped.load_state_dict(self.model.state_dict())
        shipped.config.dtype = torch.bfloat16
        shipped.save_pretrained(self.args.out)
        self.tokenizer.save_pretrained(self.args.out)

    def batch(self) -> Batch:
        """The next batch: this level's, a drill, pairs, or now and then one of an easier level."""
        if not self.args.start and self.step < REPEATS:
            return self.writer.repeats(32, 32, len(self.tokenizer))
        level, chance = self.level, self.writer.rng.random()
        if level > len(BEFORE) + 5 and chance < 0.1:
            return self.writer.batch(DRILL, TOKENS[len(BEFORE) + 5])
        if level >= len(BEFORE) and chance < 0.2:
            return self.writer.batch(BEFORE[-1], TOKENS[0])
        if level and chance > 0.9:
            level = self.writer.rng.randrange(max(0, level - 3), level)
        return self.writer.batch(LEVELS[level], TOKENS[level])

    def learn(self, done: float) -> float:
        """One step; `done` is the share of the time that has gone."""
        slow = min(1.0, (self.step + 1) / 100) * min(1.0, max(0.02, (1 - done) / 0.4))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.args.rate * slow
        batch = self.batch().to(self.device)
        with self.autocast:
            loss, right, known = losses(self.model, batch)
        self.model.zero_grad()
        cast(Any, loss).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.step += 1
        self.advance(right / max(1, known))
        return float(loss.detach())

    def advance(self, accuracy: float) -> None:
        """Follows the accuracy, and passes on to the next level when it suffices."""
        self.since += 1
        if self.step == REPEATS:
            self.accuracy, self.since = 0.0, 0
        self.accuracy += (accuracy - self.accuracy) / min(50, self.since + 1)
        if self.step > REPEATS and self.since > 60 and self.accuracy > GATES[self.level]:
            self.level, self.since, self.accuracy = self.level + 1, 0, 0.0


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
    parser.add_argument("--level", type=int, default=0, help="step of the curriculum to begin with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1e-3)
    args = parser.parse_args()
    bound_programs()
    keep_memory()
    torch.set_num_threads(args.threads)
    run(Trainer(args), args)


def run(trainer: Trainer, args: argparse.Namespace) -> None:
    """Steps until the time is up; writes a log line every 50 and a checkpoint every 250."""
    start, bar = time.monotonic(), tqdm(unit="step", mininterval=5)
    with args.log.open("a", newline="") as file:
        log = csv.writer(file)
        while (spent := (time.monotonic() - start) / 60) < args.minutes:
            loss = trainer.learn(spent / args.minutes)
            bar.update()
            if trainer.step % 50 == 0:
                row = (
                    trainer.step,
                    trainer.level,
                    f"{loss:.4f}",
                    f"{trainer.accuracy:.4f}",
                )
                log.writerow((*row, f"{spent:.2f}"))
                file.flush()
                bar.set_postfix_str(f"level {row[1]} loss {row[2]} accuracy {row[3]}")
            if trainer.step % 250 == 0:
                trainer.save()
    trainer.save()


if __name__ == "__main__":
    main()
