"""Tiny GGUF files, written as llama.cpp's convert_hf_to_gguf.py writes them."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from tests.support import tiny
from xl3m_core.inference.gguf_tokenizer import CONTROL

NAMES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "gemma3": gguf.MODEL_ARCH.GEMMA3,
}


def network(name: str) -> Any:
    """A random network whose logits are far from uniform, norms too."""
    changes: dict[str, Any] = {
        "qwen2": {"tie_word_embeddings": True},
        "gemma3": {"layer_types": None},
    }
    made = tiny.make(name, **changes.get(name, {}))
    for key, weights in made.named_parameters():
        if "norm" in key:
            torch.nn.init.normal_(weights, mean=0.5, std=0.3)
    return made


def write(path: Path, name: str, network: Any, tokenizer: Any = None, **ids: int | None) -> Path:
    """Write a network and a byte-level tokenizer as a file; ids: special tokens as in the file."""
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[NAMES[name]])
    _write_sizes(writer, network.config)
    write_vocabulary(writer, tokenizer or tiny.tokenizer(), **ids)
    names = gguf.get_tensor_name_map(NAMES[name], network.config.num_hidden_layers)
    tied = network.config.tie_word_embeddings
    for key, weights in network.state_dict().items():
        if not (tied and key.startswith("lm_head")):
            target = names.get_name(key, try_suffixes=(".weight", ".bias"))
            assert target
            writer.add_tensor(target, _converted(name, network.config, key, weights).numpy())
    if network.config.rope_parameters.get("rope_type") == "llama3":
        rotary = network.model.rotary_emb
        plain = 1 / rotary.config.rope_parameters["rope_theta"] ** (
            torch.arange(0, network.config.head_dim, 2) / network.config.head_dim
        )
        writer.add_tensor("rope_freqs.weight", (plain / rotary.inv_freq).numpy())
    return finish(writer, path)


def finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    """Write what was added."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_sizes(writer: gguf.GGUFWriter, config: Any) -> None:
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    ropes = config.rope_parameters
    writer.add_rope_freq_base(ropes.get("full_attention", ropes)["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if config.model_type == "llama":
        writer.add_rope_dimension_count(config.head_dim)
    scaling = ropes.get("full_attention", ropes)
    if scaling["rope_type"] in ("linear", "yarn", "longrope"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(scaling["rope_type"]))
        writer.add_rope_scaling_factor(scaling["factor"])
    if original := scaling.get("original_max_position_embeddings"):
        writer.add_rope_scaling_orig_ctx_len(original)
    if config.model_type == "gemma3_text":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
        writer.add_sliding_window(config.sliding_window)


def write_vocabulary(writer: gguf.GGUFWriter, tokenizer: Any, **ids: int | None) -> None:
    """Add a byte-level tokenizer; ids: `bos`, `eos`, `pad`, `eot`, each a number or None."""
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    special = {token["id"] for token in data["added_tokens"]}
    tokens = [token for token, _ in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if i in special else 1 for i in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in data["model"]["merges"]])
    given: dict[str, int | None] = {"bos": 0, "eos": 1, "pad": 2, **ids}
    for role, number in given.items():
        if number is not None:
            getattr(writer, f"add_{role}_token_id")(number)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _converted(name: str, config: Any, key: str, weights: torch.Tensor) -> torch.Tensor:
    """The weights as the converter stores them: Llama's rotated halves are interleaved, Gemma's
    norms are what is multiplied with."""
    if name == "llama" and key.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config.num_attention_heads if "q_proj" in key else config.num_key_value_heads
        halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, -1)
        return halves.swapaxes(1, 2).reshape(weights.shape).contiguous()
    return weights + 1 if name == "gemma3" and key.endswith("norm.weight") else weights


def write_sentencepiece(
    path: Path, pieces: dict[str, float], kinds: dict[str, int], space: bool = True
) -> Path:
    """A file with a SentencePiece vocabulary, in order of id, and no network."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*pieces])
    writer.add_token_scores([*pieces.values()])
    writer.add_token_types([kinds.get(piece, 1) for piece in pieces])
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(space)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    return finish(writer, path)
