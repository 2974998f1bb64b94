"""Rows within a sliding window, and after a running state, share and pack; longer ones do not."""

import logging
from functools import lru_cache
from typing import Any

import pytest
import torch
import transformers

from tests.support import tiny
from xl3m_core import LanguageModel
from xl3m_core.inference.capabilities import Probe
from xl3m_core.inference.fast_path import FastPaths

SIGHT = 100
"""Tokens in the sliding windows here."""
_MAMBA = {"mamba_d_state": 8, "mamba_chunk_size": 16, "mamba_n_groups": 1}
HYBRID: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon_h1": (
        "FalconH1Config",
        _MAMBA | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8},
    ),
    "qwen3_next": (
        "Qwen3NextConfig",
        {
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "qwen3_5": (
        "Qwen3_5TextConfig",
        {
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
        },
    ),
    "granite_hybrid": (
        "GraniteMoeHybridConfig",
        {
            **_MAMBA,
            "layer_types": ["mamba", "attention"],
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_expand": 1,
            "num_local_experts": 0,
            "shared_intermediate_size": 64,
        },
    ),
}
SLIDING = ("mistral", "gemma3")
LINES = [tiny.SAMPLE[i : i + n] for i, n in ((0, 30), (9, 30), (20, 21), (5, 40), (30, 30))]
ASKED = ["Which pump?", "Is the pressure in the hall low?", "why"]


@lru_cache
def network(name: str) -> Any:
    if name in SLIDING:
        return tiny.make(name, sliding_window=SIGHT)
    kind, numbers = HYBRID[name]
    sizes = tiny._GROUPED | numbers
    return tiny.made(getattr(transformers, kind)(**sizes))


def fresh(name: str) -> LanguageModel:
    return LanguageModel(network(name), tiny.tokenizer(), tiny.WINDOW)


def slow(model: LanguageModel) -> None:
    """Keep the model from every fast path."""
    model.can_pack = model.can_share_prefix = False


def rows_of(*lengths: int) -> list[list[int]]:
    return [[(n * i + 3) % tiny.VOCAB for i in range(n)] for n in lengths]


@pytest.mark.guarantee("Stream equals batch")
@pytest.mark.parametrize("name", [*SLIDING, *HYBRID])
def test_scores_by_the_fast_path_are_those_of_rows_alone(name: str) -> None:
    model = fresh(name)
    engine = tiny.engine(model, "hybrid", segment_tokens=30, question_tokens=50, overlap_tokens=0)
    assert model.can_share_prefix
    assert model.can_pack is (name in SLIDING)
    pairs = [(line, question) for line in LINES for question in ASKED]
    fast = engine.score(pairs)
    slow(model)
    assert fast == pytest.approx([engine.score([pair])[0] for pair in pairs], abs=3e-4)
    assert max(fast) - min(fast) > 0.01


@pytest.mark.parametrize("name", [*SLIDING, *HYBRID])
@torch.inference_mode()
def test_rows_longer_than_those_tried_are_read_whole(name: str) -> None:
    """Within a sliding window and beyond it."""
    model, suffixes = fresh(name), rows_of(5, 9)
    assert not (model.can_share_prefix or model.can_pack or model.can_extend_cache)
    model.probe_rows(tiny.WINDOW)
    assert model.can_share_prefix
    assert model.fast_tokens == (SIGHT if name in SLIDING else tiny.WINDOW)
    for lengths in ((90, 40, 90, 20), (150, 40), (SIGHT - 9, SIGHT - 8)):
        rows = rows_of(*lengths)
        shared = [*model.suffix_logits(rows, suffixes, [7, 7])]
        for suffix, found in zip(suffixes, shared, strict=True):
            whole = [model.model(torch.tensor([row + suffix])).logits[0, -7:] for row in rows]
            torch.testing.assert_close(found, torch.stack(whole), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", SLIDING)
@torch.inference_mode()
def test_packed_rows_within_a_sliding_window_have_their_own_logits(name: str) -> None:
    model = fresh(name)
    model.probe_rows(SIGHT - 10)
    assert model.can_pack and model.fast_tokens == SIGHT - 10
    for lengths in ((90, 40, 90, 20), (150, 40), (SIGHT - 10, 3)):
        rows = rows_of(*lengths)
        for row, found in zip(rows, model.logits(rows, 3), strict=True):
            alone = model.model(torch.tensor([row])).logits[0, -3:]
            torch.testing.assert_close(found, alone, rtol=1e-3, atol=1e-3)


def test_a_longer_probe_that_fails_leaves_what_shorter_rows_may(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = fresh("mistral")
    model.probe_rows(40)
    monkeypatch.setattr(Probe, "is_close", lambda *_: False)
    model.probe_rows(80)
    assert (model.fast_tokens, model.can_pack, model.can_share_prefix) == (40, True, True)


def test_a_probe_has_a_row_as_long_as_those_that_are_scored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, longest = fresh("mistral"), list[int]()
    packed = model.packed_logits

    def noting(rows: list[list[int]], keep: int) -> torch.Tensor:
        longest.append(max(map(len, rows)))
        return packed(rows, keep)

    monkeypatch.setattr(model, "packed_logits", noting)
    engine = tiny.engine(model, segment_tokens=30, question_tokens=40, overlap_tokens=0)
    assert max(longest) == model.fast_tokens >= 1 + 30 + 40
    assert engine.method.segment_tokens == 30


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama", "packed: yes; prefixes shared: yes"),
        ("bloom", "packed: no, the network takes no position_ids"),
        ("mistral", f"packed: no, its layers see {tiny.SLIDING} tokens"),
        ("mamba", "rows padded: no"),
    ],
)
def test_the_log_says_which_paths_a_model_takes(
    name: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "xl3m"):
        model = LanguageModel(tiny.make(name), tiny.tokenizer(), tiny.WINDOW)
    assert isinstance(model, FastPaths)
    (line,) = [line for line in caplog.messages if "rows padded" in line]
    assert line.startswith(f"{name} in float32 on cpu; torch's attention") or "blocked" in line
    assert said in line
