"""How a GGUF file scales its positions, which transformers 5.17 leaves out.

Without it a model is right near the start of its window only, and nothing shows it.
"""

from typing import Any

import gguf
import torch

from xl3m_core.inference.gguf_reader import FastReader

FREQUENCIES = "rope_freqs.weight"
"""What each rotation frequency is divided by: Llama 3.1 and later."""


def scale_positions(config: Any, reader: FastReader) -> None:
    """Write the file's scaling into the config. Raises ValueError for a kind that is not known."""

    def value(name: str) -> Any:
        return reader.value(f"{reader.architecture}.rope.scaling.{name}")

    if any(tensor.name.startswith("rope_factors_") for tensor in reader.tensors):
        raise ValueError("its positions are scaled in a way that is not supported: 'longrope'")
    kind, factor = value("type"), value("factor")
    if kind in (None, "none") or (kind == "linear" and factor in (None, 1.0)):
        return
    if kind not in ("linear", "yarn") or not factor:
        raise ValueError(f"its positions are scaled in a way that is not supported: {kind!r}")
    scaling = {"rope_type": kind, "factor": float(factor)}
    if original := value("original_context_length"):
        scaling["original_max_position_embeddings"] = original
    ropes = getattr(config, "rope_parameters", None)
    if ropes is None:  # transformers 4
        config.rope_scaling = scaling
    else:  # where layers differ, those with a sliding window are not scaled
        ropes.get("full_attention", ropes).update(scaling)


def divide_frequencies(model: Any, reader: FastReader) -> None:
    """Divide the network's rotation frequencies by the file's factors, if it has any."""
    found = [tensor for tensor in reader.tensors if tensor.name == FREQUENCIES]
    for tensor in found:
        factors = torch.tensor(gguf.dequantize(tensor.data, tensor.tensor_type).copy())
        for module in model.modules():
            if isinstance(frequencies := getattr(module, "inv_freq", None), torch.Tensor):
                frequencies.div_(factors.to(frequencies))
