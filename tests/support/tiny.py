"""Tiny models with random weights, one of each architecture, and a tiny tokenizer, all in memory.

Weights are large on purpose: the distributions are far from uniform, so a wrong position, mask
or slice changes the numbers visibly. Nothing is loaded or downloaded.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from xl3m_core import Engine, LanguageModel, Measure, Method

# On matrices this small a second thread costs more than it gains.
torch.set_num_threads(1)

WINDOW = 192
SLIDING = 16
"""The attention window of the models that have one: shorter than most rows."""

VOCAB = 300
SPECIAL = ["<s>", "</s>", "<pad>"]
SAMPLE = "Question: which pump is down? Answer: pump seven, the pressure in the hall is low.\n"
CHAT = "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}<s>assistant:"

_COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
_SIZED = _COMMON | {"max_position_embeddings": WINDOW}
_GROUPED = _SIZED | {"num_key_value_heads": 2, "head_dim": 8}
_OPT = {"ffn_dim": 64, "word_embed_proj_dim": 32}
_RECURRENT = {"attention_hidden_size": 32, "context_length": WINDOW}
_MIXED = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": SLIDING}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2Config", _SIZED),
    "opt": ("OPTConfig", _SIZED | _OPT),
    "llama": ("LlamaConfig", _GROUPED),
    "mistral": ("MistralConfig", _GROUPED | {"sliding_window": SLIDING}),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", _GROUPED),
    "gemma3": ("Gemma3TextConfig", _GROUPED | _MIXED),
    "phi3": ("Phi3Config", _GROUPED),
    "gpt_neox": ("GPTNeoXConfig", _SIZED),
    "bloom": ("BloomConfig", _COMMON | {"n_head": 4, "seq_length": WINDOW}),
    "mamba": ("MambaConfig", _COMMON | {"state_size": 8}),
    "rwkv": ("RwkvConfig", _COMMON | _RECURRENT),
}
UNPADDED = ("mamba", "rwkv")
PADDED = tuple(name for name in CONFIGS if name not in UNPADDED)


@lru_cache
def _bpe() -> str:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator([SAMPLE] * 8, trainer)
    return str(bpe.to_str())


def _wrapped(tokenizer: Tokenizer, **options: Any) -> Any:
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=tokenizer, **options)


def tokenizer(chat: str | None = None, **options: Any) -> Any:
    """A byte-level BPE with few merges: decoding returns the text exactly."""
    bos, eos, pad = SPECIAL
    names = {"bos_token": bos, "eos_token": eos, "pad_token": pad} | options
    made = _wrapped(Tokenizer.from_str(_bpe()), **names)
    made.chat_template = chat
    return made


def spaced_tokenizer() -> Any:
    """A tokenizer that joins a space to the following word, as Llama 2's does."""
    byte = {f"<0x{i:02X}>": 3 + i for i in range(256)}
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **byte, "▁": 259} | {
        chr(c): 260 + c - 97 for c in range(97, 123)
    }
    bpe = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    bpe.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _wrapped(bpe, bos_token="<s>", eos_token="</s>")


@lru_cache
def network(name: str) -> Any:
    """The transformers model of an architecture, float32; shared, so do not change it."""
    return make(name)


def make(name: str, **changes: Any) -> Any:
    """A new model of an architecture, with changes to its config."""
    kind, numbers = CONFIGS[name]
    return made(getattr(transformers, kind)(**numbers | changes))


def made(config: Any) -> Any:
    """The model of a config, with matrices large enough for clear preferences."""
    torch.manual_seed(7)
    auto: Any = AutoModelForCausalLM
    network = auto.from_config(config).eval().requires_grad_(False)
    for weights in network.parameters():
        if weights.dim() > 1:
            torch.nn.init.normal_(weights, std=0.3)
    return network


def save(network: Any, folder: Path) -> None:
    """Save the model and the tokenizer in the layout of the hub."""
    network.save_pretrained(folder)
    tokenizer().save_pretrained(folder)


@lru_cache
def model(name: str = "llama") -> LanguageModel:
    """A language model of an architecture."""
    return LanguageModel(network(name), tokenizer(), WINDOW)


def engine(
    model: LanguageModel, measure: Measure = "entropy", batch_tokens: int = 4096, **method: Any
) -> Engine:
    """An engine on a model; questions may be long, since this tokenizer's tokens are short."""
    fitted = Method.fit(WINDOW, measure=measure, **{"question_tokens": 64} | method)
    return Engine(model, fitted, batch_tokens)


class Maskless(torch.nn.Module):
    """A causal LM without an attention mask: it attends to padding, too."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network("llama")
        self.config, self.device = self.inner.config, self.inner.device

    def forward(self, input_ids: Tensor, use_cache: bool = False) -> Any:
        return self.inner(input_ids=input_ids, use_cache=use_cache)


class Watched(LanguageModel):
    """A language model that records the rows of every batch."""

    def __init__(self, name: str = "llama") -> None:
        self.batches: list[list[list[int]]] = []
        super().__init__(network(name), tokenizer(), WINDOW)
        self.batches.clear()

    def logits(self, rows: Sequence[Sequence[int]], keep: int) -> Tensor:
        self.batches.append([list(row) for row in rows])
        return super().logits(rows, keep)


def bigrams(tokenizer: Any, follows: dict[int, dict[int, float]]) -> Any:
    """A Llama whose next token depends on the last one only. follows: last -> next -> logit."""
    size = len(tokenizer) + -len(tokenizer) % 4
    network = make("llama", vocab_size=size, hidden_size=size)
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if "embed" in name or "norm" in name:
                torch.nn.init.ones_(weights) if "norm" in name else torch.nn.init.eye_(weights)
            else:
                torch.nn.init.zeros_(weights)
        for last, found in follows.items():
            for following, logit in found.items():
                # RMSNorm turns a one-hot vector of that size into the square root of the size.
                network.lm_head.weight[following, last] = logit / network.config.hidden_size**0.5
    return network
