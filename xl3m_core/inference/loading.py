"""A model's name -> its network and tokenizer, or the reason why not. Nothing is half loaded.

Knows transformers and what it passes over with a mere warning; not what the model is for.
"""

from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from xl3m_core.errors import ModelError
from xl3m_core.inference.special_tokens import without_special_tokens

BUNDLED_MODEL = Path(__file__).parents[1] / "small"
"""The folder of the small model that comes with this package."""


def load(name: str, device: str | None = None, dtype: str | None = None) -> tuple[Any, Any]:
    """Model and tokenizer on the device, by default the best there is. Raises ModelError."""
    _check_name(Path(name))
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        model, tokenizer = _load(name, dtype or best_dtype(device))
        return model.to(device), tokenizer
    except Exception as error:  # a broken folder makes the libraries below raise anything
        raise ModelError(
            f"cannot load a causal LM from {name!r}: {error_summary(error)}"
        ) from error


def _check_name(path: Path) -> None:
    """A file is no model's name, whatever is in it. Raises ModelError that says what is."""
    files = [path] if path.is_file() or path.suffix.lower() == ".gguf" else []
    if path.is_dir() and not (path / "config.json").exists():
        files = sorted(path.glob("*.gguf"))
    if files and files[0].suffix.lower() == ".gguf":
        raise ModelError(
            f"{str(files[0])!r} is GGUF, which is not read: give the folder or hub id of the model "
            "it was made from (config.json, tokenizer.json, *.safetensors); or convert it with "
            "transformers, from_pretrained(folder, gguf_file=name) and then save_pretrained"
        )
    if files:
        raise ModelError(f"{str(path)!r} is a file: give the folder that it lies in")


def error_summary(error: Exception) -> str:
    """The first line of what a library says, or else what kind of error it is."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _load(name: str, dtype: str | torch.dtype) -> tuple[Any, Any]:
    """Model and tokenizer; ValueError for what transformers would load with a mere warning."""
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
    """bfloat16 where the hardware multiplies it fast, else float32."""
    if device.startswith("cuda"):
        return torch.bfloat16
    cpu = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = bool(cpu.get("amx_bf16") or cpu.get("avx512_bf16"))
    return torch.bfloat16 if fast else torch.float32


def fast_tokenizer(tokenizer: Any) -> Any:
    """A copy of the tokenizer's part in Rust, told as `LanguageModel.encode` needs it, if it has
    one that can be copied. Called itself it spends no time on masks and the like; nobody changes
    how it works, so that any number of threads may; and no text becomes a control token."""
    try:
        backend = without_special_tokens(tokenizer.backend_tokenizer, tokenizer.all_special_tokens)
    except Exception:  # none, or with parts written in Python
        return None
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def fingerprint(model: Any) -> str:
    """Names the weights, whatever dtype they were loaded in: 64 values of each are enough."""
    digest = blake2b(digest_size=8)
    for name, weights in model.named_parameters():
        some = weights.detach().flatten()[:64].to("cpu", torch.bfloat16).view(torch.int16)
        digest.update(f"{name}{tuple(weights.shape)}".encode() + some.numpy().tobytes())
    return digest.hexdigest()
