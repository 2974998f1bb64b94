"""Loads a GGUF file (llama.cpp's format) as an ordinary, dequantised network of transformers.

The network comes from transformers' own loader, the tokenizer from `gguf_tokenizer`. What cannot be
read, and what reads no text afterwards, is refused in one line.
"""

import logging
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from xl3m_core.errors import ModelError, error_summary

if TYPE_CHECKING:
    from xl3m_core.inference.gguf_reader import FastReader

logger = logging.getLogger("xl3m")

INSTALL = "pip install 'xl3m-stream[gguf]'"
CHECK = (
    "The sun rises in the east and sets in the west. Water boils when it is heated, and it turns "
    "into ice when it is cold. Most people live in cities and go to work in the morning. When it "
    "rains, the streets are wet, and the children stay at home and read a book. My brother bought "
    "a new car last year, but he still takes the train to the office every day."
)
MARGIN = 1.0
"""How many nats a token the order of `CHECK` is worth at least. Measured: 4.8 for SmolLM2-135M and
4.6 for Gemma 3 270M as they are, below 0.8 for SmolLM2 with a matrix transposed or turned round in
each layer."""

MAX_LAYERS = 1024
"""A file that claims more than this, and more than it has tensors, is damaged."""


def load_gguf(path: Path, dtype: str | torch.dtype) -> tuple[Any, Any]:
    """Model, on the CPU, and tokenizer of a file. Raises ModelError."""
    reader = open_gguf(path)
    try:
        model, tokenizer = _load(reader, path, dtype)
    except Exception as error:  # the libraries may raise anything for a damaged file
        about = f"architecture {reader.architecture!r}: {error_summary(error)}"
        raise _refusal(path, about) from error
    check_reads_text(model, tokenizer, path)
    _log(model, reader, path)
    return model, tokenizer


def open_gguf(path: Path) -> "FastReader":
    """The file's metadata and tensors. Raises ModelError if it is no whole causal LM."""
    try:
        from xl3m_core.inference.gguf_reader import FastReader
    except ImportError as error:
        raise _refusal(path, f"needs the packages gguf and accelerate: {INSTALL}") from error
    try:
        reader = FastReader(path)
        problem = _problem(reader)
    except Exception as error:  # damage may raise anything
        raise _refusal(path, error_summary(error)) from error
    if problem:
        raise _refusal(path, problem)
    return reader


def _refusal(path: Path, problem: str) -> ModelError:
    return ModelError(f"cannot load the GGUF file {str(path)!r}: {problem}")


def _problem(reader: "FastReader") -> str:
    """Why a file is no language model on its own; empty if it is one."""
    name = reader.architecture
    if f"{name}.pooling_type" in reader.fields or reader.value(f"{name}.attention.causal") is False:
        return f"it is an embedding model (architecture {name!r}), not a causal LM"
    if (parts := reader.value("split.count", 1)) > 1:
        return f"it is one of {parts} parts: merge them with llama.cpp's llama-gguf-split --merge"
    if "tokenizer.ggml.tokens" not in reader.fields:
        return f"it has no vocabulary (architecture {name!r}), so it is no language model"
    if (layers := reader.value(f"{name}.block_count", 0)) > max(MAX_LAYERS, len(reader.tensors)):
        return f"it is damaged: it claims {layers} layers and has {len(reader.tensors)} tensors"
    return ""


def _load(reader: "FastReader", path: Path, dtype: str | torch.dtype) -> tuple[Any, Any]:
    """Model and tokenizer. Raises ValueError for missing weights."""
    from xl3m_core.inference.gguf_reader import read_once
    from xl3m_core.inference.gguf_rope import divide_frequencies, scale_positions
    from xl3m_core.inference.gguf_tokenizer import gguf_tokenizer, with_file_tokens

    place: dict[str, Any] = {
        "pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name,
        "trust_remote_code": False, "local_files_only": True,
    }  # fmt: skip
    with read_once(reader, path):
        config = AutoConfig.from_pretrained(**place)
        if config.is_encoder_decoder:
            raise ValueError("it is an encoder-decoder")
        scale_positions(config, reader)
        tokenizer = gguf_tokenizer(reader)
        if tokenizer is None:
            logger.warning("%s: its tokenizer is as transformers converts it", path.name)
            tokenizer = with_file_tokens(AutoTokenizer.from_pretrained(**place), reader)
        _with_end_tokens(config, reader)
        causal: Any = AutoModelForCausalLM
        model, info = causal.from_pretrained(
            **place, **_dequantized(), config=config, dtype=dtype, output_loading_info=True
        )
    if info["missing_keys"]:
        raise ValueError(f"it has no weights for {', '.join(sorted(info['missing_keys'])[:3])}")
    divide_frequencies(model, reader)
    model.config.name_or_path = str(path)
    return model, tokenizer


def _dequantized() -> dict[str, Any]:
    """Options with which no weight stays in blocks, and nothing in the config says that one did."""
    config = getattr(transformers, "GgufConfig", None)  # older versions always dequantise
    return {"quantization_config": config(dequantize=True)} if config else {}


def _with_end_tokens(config: Any, reader: "FastReader") -> None:
    """Take the special tokens from the file: a turn's end ends an answer as well."""
    get = reader.value
    ends = [get("tokenizer.ggml.eos_token_id"), get("tokenizer.ggml.eot_token_id")]
    numbers = [*dict.fromkeys(number for number in ends if number is not None)]
    config.bos_token_id = get("tokenizer.ggml.bos_token_id")
    config.eos_token_id = numbers[0] if len(numbers) == 1 else numbers or None
    config.pad_token_id = get("tokenizer.ggml.padding_token_id")


@torch.inference_mode()
def check_reads_text(model: Any, tokenizer: Any, path: Path) -> None:
    """Raise ModelError if the model finds English no likelier than a guess, or than the same tokens
    in another order.

    Weights that were read in a wrong layout, or token ids of another vocabulary, do not show in any
    shape. A guess among V tokens costs log V nats a token.
    """
    ids = tokenizer(CHECK, add_special_tokens=False)["input_ids"]
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    shuffled = [number for start in range(7) for number in ids[start::7]]
    loss, other = (_loss(model, [*bos, *row]) for row in (ids, shuffled))
    guess = math.log(model.get_output_embeddings().weight.shape[0])
    if not loss < min(guess, other - MARGIN):
        raise _refusal(
            path,
            f"it was read, but the model is broken: plain English costs it {loss:.1f} nats a "
            f"token, shuffled English {other:.1f}, a blind guess {guess:.1f}",
        )


def _loss(model: Any, row: list[int]) -> float:
    """Nats a token, the first left out."""
    ids = torch.tensor([row])
    p = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
    return float(-p.gather(1, ids[0, 1:, None]).mean())


def _log(model: Any, reader: "FastReader", path: Path) -> None:
    """Say what was dequantised, and what it takes."""
    kinds = Counter[str]()
    for tensor in reader.tensors:
        kinds[tensor.tensor_type.name] += tensor.n_bytes
    logger.info(
        "%s: %.0f MB on disk (%s) are %.0f MB of %s in memory",
        path.name, path.stat().st_size / 1e6, ", ".join(name for name, _ in kinds.most_common()),
        sum(p.nbytes for p in model.parameters()) / 1e6, str(model.dtype).removeprefix("torch."),
    )  # fmt: skip
