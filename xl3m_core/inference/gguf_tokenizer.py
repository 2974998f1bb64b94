"""Makes the tokenizer that a GGUF file describes, with its special tokens and chat template.

transformers' own conversion (5.17) takes the end token of a Llama for its begin token, leaves
control tokens unmarked, splits numbers in Llama 3 as GPT-2 does, and reads Gemma's pieces as a
unigram model, which cuts English into fragments ("t he"): right weights then give nonsense. So the
two kinds of vocabulary in use, byte-level BPE ("gpt2") and SentencePiece's BPE ("llama"), are made
here; other kinds are left to transformers.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from xl3m_core.inference.gguf_reader import FastReader

CONTROL, USER_DEFINED = 3, 4
"""Kinds of token, in `tokenizer.ggml.token_type`."""
ROLES = {
    "bos_token": "bos_token_id", "eos_token": "eos_token_id",
    "pad_token": "padding_token_id", "unk_token": "unknown_token_id",
}  # fmt: skip
SPACE = "▁"

# `tokenizer.ggml.pre` says how text is split before merging; llama.cpp knows some fifty names
# (src/llama-vocab.cpp). Those of one expression are together here.
_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PATTERNS = {_WORDS + r"\p{N}{1,3}" + _SIGNS: "llama3 llama-v3 llama-bpe falcon3 smaug-bpe"}
_PATTERNS[_WORDS + r"\p{N}" + _SIGNS] = "qwen2 stablelm2 deepseek-r1-qwen hunyuan megrez"
_SPLITS = {name: pattern for pattern, names in _PATTERNS.items() for name in names.split()}
_GPT2 = {"gpt-2", "gpt2", "phi-2", "mpt", "olmo", "jais"}
_DIGITS = {"smollm", "starcoder", "refact", "codeshell", "command-r", "exaone", "minerva-7b"}
"""GPT-2's expression behind single digits."""


def gguf_tokenizer(reader: FastReader) -> Any:
    """The tokenizer of a file; None if it is of a kind that is made elsewhere."""
    tokens = _tokens(reader)
    kind, split = reader.value("tokenizer.ggml.model"), reader.value("tokenizer.ggml.pre")
    if kind == "llama":
        backend = _sentencepiece(reader, tokens)
    elif kind == "gpt2" and (steps := _steps(split)):
        backend = _byte_level(reader, tokens, steps, split)
    else:
        return None
    made: Any = PreTrainedTokenizerFast
    tokenizer = made(tokenizer_object=backend, clean_up_tokenization_spaces=False)
    return with_file_tokens(tokenizer, reader)


def with_file_tokens(tokenizer: Any, reader: FastReader) -> Any:
    """The tokenizer with the special tokens, the chat template and the window of the file."""
    tokens, kinds = _tokens(reader), reader.value("tokenizer.ggml.token_type", [])
    tokenizer.add_tokens([*_added(tokens, kinds)])
    for role, key in ROLES.items():
        number = reader.value(f"tokenizer.ggml.{key}")
        setattr(tokenizer, role, None if number is None else tokens[number])
    tokenizer.chat_template = reader.value("tokenizer.chat_template")
    tokenizer.model_max_length = reader.value(f"{reader.architecture}.context_length") or 10**30
    return tokenizer


def _tokens(reader: FastReader) -> list[str]:
    return list(reader.value("tokenizer.ggml.tokens", []))


def _added(tokens: Sequence[str], kinds: Sequence[int]) -> Iterator[AddedToken]:
    """Tokens that are found in a text as a whole. Control tokens are those of the model's maker."""
    for token, kind in zip(tokens, kinds, strict=False):
        if kind in (CONTROL, USER_DEFINED):
            # Pieces of several blanks are found behind the step that writes blanks as SPACE.
            yield AddedToken(token, normalized=SPACE in token, special=kind == CONTROL)


def _steps(name: str | None) -> list[Any]:
    """What splits a text before merging; nothing for a name that is not known."""
    if name in _SPLITS:
        split = pre_tokenizers.Split(Regex(_SPLITS[name]), "isolated")
        return [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    digits = [pre_tokenizers.Digits(individual_digits=True)] if name in _DIGITS else []
    known = name in _DIGITS | _GPT2
    return [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)] if known else []


def _byte_level(
    reader: FastReader, tokens: Sequence[str], steps: list[Any], split: str | None
) -> Tokenizer:
    merges = [tuple(pair.split(" ", 1)) for pair in reader.value("tokenizer.ggml.merges", [])]
    vocab = {token: number for number, token in enumerate(tokens)}
    whole = (
        split in _PATTERNS[_WORDS + r"\p{N}{1,3}" + _SIGNS].split()
    )  # words found before merging
    backend = Tokenizer(models.BPE(vocab, merges, ignore_merges=whole))
    if split == "qwen2":
        backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(reader: FastReader, tokens: Sequence[str]) -> Tokenizer:
    """SentencePiece's BPE: of two neighbours, those that make the piece of the highest score are
    merged first; characters outside the vocabulary become bytes."""
    unknown = reader.value("tokenizer.ggml.unknown_token_id")
    vocab = {token: number for number, token in enumerate(tokens)}
    bpe = models.BPE(
        vocab, _merges(reader, vocab), unk_token=None if unknown is None else tokens[unknown],
        fuse_unk=True, byte_fallback=True,
    )  # fmt: skip
    backend = Tokenizer(bpe)
    begins = bool(reader.value("tokenizer.ggml.add_space_prefix", True))
    blanks: list[Any] = [normalizers.Replace(" ", SPACE)]
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE)] * begins + blanks)
    text: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(text + [decoders.Strip(" ", 1, 0)] * begins)
    return backend


def _merges(reader: FastReader, vocab: dict[str, int]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, the piece of the highest score first."""
    scores = reader.value("tokenizer.ggml.scores", [0.0] * len(vocab))
    kinds = reader.value("tokenizer.ggml.token_type", [1] * len(vocab))
    plain = {token for token, number in vocab.items() if kinds[number] in (1, USER_DEFINED)}
    found = [
        (-scores[vocab[piece]], cut, len(piece) - cut, piece)
        for piece in plain
        for cut in range(1, len(piece))
        if piece[:cut] in plain and piece[cut:] in plain
    ]
    return [(piece[:cut], piece[cut:]) for _, cut, _, piece in sorted(found)]
