"""Loads a network and its tokenizer by name, with transformers.

Anything that transformers would load incompletely, with only a warning, is an error here.
"""

from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from xl3m_core.errors import ModelError, error_summary
from xl3m_core.inference.gguf import load_gguf
from xl3m_core.inference.model_name import BUNDLED_MODEL as BUNDLED_MODEL
from xl3m_core.inference.model_name import is_gguf, locate
from xl3m_core.inference.special_tokens import without_special_tokens


def load(name: str, device: str | None = None, dtype: str | None = None) -> tuple[Any, Any]:
    """Model and tokenizer on a device, by default a GPU if there is one. Raises ModelError.

    name: as in `model_name`.
    """
    place = locate(name)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model, tokenizer = _load(place, dtype or best_dtype(device))
        return model.to(device), tokenizer
    except ModelError:
        raise
    except Exception as error:  # the libraries may raise anything for a broken folder
        raise ModelError(
            f"cannot load a causal LM from {name!r}: {error_summary(error)}"
        ) from error


def _load(name: str, dtype: str | torch.dtype) -> tuple[Any, Any]:
    """Model and tokenizer. Raises ValueError for an encoder-decoder and for missing weights."""
    if is_gguf(name):
        return load_gguf(Path(name), dtype)
    config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if config.is_encoder_decoder:
        raise ValueError(f"{config.model_type} is an encoder-decoder")
    tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    causal: Any = AutoModelForCausalLM
    model, info = causal.from_pretrained(
        name, config=config, dtype=dtype, trust_remote_code=False, output_loading_info=True
    )
    if info["missing_keys"]:
        raise ValueError(f"it has no weights for {', '.join(sorted(info['missing_keys'])[:3])}")
    return model, tokenizer


def best_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware has fast instructions for it, else float32."""
    if device.startswith("cuda"):
        return torch.bfloat16
    cpu = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = bool(cpu.get("amx_bf16") or cpu.get("avx512_bf16"))
    return torch.bfloat16 if fast else torch.float32


def fast_tokenizer(tokenizer: Any) -> Any:
    """A copy of the tokenizer's fast part (in Rust) for `LanguageModel.encode`; None if it has none
    that can be copied. It makes no attention masks; no one else changes its options, so any number
    of threads may call it; and no text in it becomes a control token."""
    try:
        backend = without_special_tokens(tokenizer.backend_tokenizer, tokenizer.all_special_tokens)
    except Exception:  # there is none, or parts of it are written in Python
        return None
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def fingerprint(model: Any) -> str:
    """Hash of the weights, 64 values of each, the same in every dtype."""
    digest = blake2b(digest_size=8)
    for name, weights in model.named_parameters():
        values = weights.detach().flatten()[:64].to("cpu", torch.bfloat16).view(torch.int16)
        digest.update(f"{name}{tuple(weights.shape)}".encode() + values.numpy().tobytes())
    return digest.hexdigest()
