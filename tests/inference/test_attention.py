"""Blocked attention equals torch's own, with any mask, cache or shared prefix."""

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention

from tests.support import tiny
from xl3m_core import LanguageModel
from xl3m_core.inference import attention, attention_choice
from xl3m_core.inference.capabilities import Probe

MODULE = torch.nn.Module()


@given(
    st.integers(1, 3),
    st.integers(2, 2 * attention.BLOCK + 3),
    st.integers(0, 40),
    st.sampled_from([(4, 4), (4, 2), (3, 1)]),
    st.integers(0),
    st.sampled_from([torch.float32, torch.bfloat16]),
    st.sampled_from([1, 5000, attention.MAX_SCORES]),
)
@settings(max_examples=60, deadline=None)
@torch.inference_mode()
def test_blocked_attention_is_torchs_attention(
    rows: int,
    width: int,
    before: int,
    heads: tuple[int, int],
    seed: int,
    dtype: torch.dtype,
    room: int,
) -> None:
    """With random padding, keys of earlier tokens, and heads that share keys."""
    dice = torch.Generator().manual_seed(seed % 2**63)
    many, few = heads
    query = torch.randn(rows, many, width, 8, generator=dice, dtype=dtype)
    key, value = (
        torch.randn(rows, few, before + width, 8, generator=dice, dtype=dtype) for _ in range(2)
    )
    seen = torch.ones(width, before + width, dtype=torch.bool).tril(before)
    pads = torch.randint(0, before + width, (rows, 1, 1, 1), generator=dice)
    own = torch.ones(width, before + width, dtype=torch.bool).triu(before)  # never quite nothing
    shown = seen & ((torch.arange(before + width) >= pads) | own)
    mask = torch.zeros(shown.shape, dtype=dtype).masked_fill(~shown, torch.finfo(dtype).min)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(attention, "MAX_SCORES", room)
        found, _ = attention.blocked_attention(MODULE, query, key, value, mask, scaling=0.5)
    keys, values = (x.repeat_interleave(many // few, 1) for x in (key, value))
    wanted = scaled_dot_product_attention(query, keys, values, mask, scale=0.5).transpose(1, 2)
    rounding = 1e-5 if dtype == torch.float32 else 4 * 2.0**-7
    torch.testing.assert_close(found, wanted, rtol=0, atol=rounding)


@pytest.mark.parametrize(("scale", "atol"), [(1.0, 1e-5), (1e3, 1e-3), (1e6, 1e-3)])
@given(st.integers(1, 3), st.integers(2, 2 * attention.BLOCK + 3), st.integers(0))
@settings(max_examples=20, deadline=None)
@torch.inference_mode()
def test_without_a_mask_each_token_sees_itself_and_what_is_before(
    scale: float, atol: float, rows: int, width: int, seed: int
) -> None:
    """Also where the exponentials of the scores overflow."""
    dice = torch.Generator().manual_seed(seed % 2**63)
    query, key, value = torch.randn(3, rows, 2, width, 8, generator=dice)
    query *= scale
    found, _ = attention.blocked_attention(MODULE, query, key, value, None, scaling=0.5)
    wanted = scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.5)
    torch.testing.assert_close(found, wanted.transpose(1, 2), rtol=0, atol=atol)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0, 1e3, 1e6])
@pytest.mark.parametrize("shift", [-200.0, -90.0, -75.0, 0.0, 75.0, 90.0, 200.0])
@torch.inference_mode()
def test_scores_of_any_size_are_weighed_as_torch_does(scale: float, shift: float) -> None:
    """Also where their exponentials all underflow, or overflow."""
    dice = torch.Generator().manual_seed(1)
    query, key, value = torch.randn(3, 2, 4, 40, 8, generator=dice)
    query *= scale
    mask = torch.full((2, 1, 40, 40), shift).masked_fill(
        torch.ones(40, 40, dtype=torch.bool).triu(1), torch.finfo(torch.float32).min
    )
    found, _ = attention.blocked_attention(MODULE, query, key, value, mask, scaling=0.5)
    wanted = scaled_dot_product_attention(query, key, value, mask, scale=0.5).transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def by_name(model: LanguageModel, name: str, lengths: Sequence[int]) -> torch.Tensor:
    """The last logits of rows of these lengths, with the attention of that name."""
    model.can_pack = False  # torch's own knows no packed rows
    model.model.set_attn_implementation(name)
    rows = [[n % tiny.VOCAB for n in range(3, 3 + length)] for length in lengths]
    return model.logits(rows, keep=min(lengths) // 2)


@pytest.mark.parametrize("kind", [attention.NAME, attention.PACKED])
@pytest.mark.parametrize("name", tiny.PADDED)
def test_a_models_logits_are_the_same_with_each_attention(name: str, kind: str) -> None:
    """Also with a sliding window; a model that cannot be switched stays as it is."""
    model = LanguageModel(copy.deepcopy(tiny.network(name)), tiny.tokenizer())
    plain, found = (
        by_name(model, each, (tiny.WINDOW - 3, tiny.WINDOW // 2)) for each in (attention.SDPA, kind)
    )
    torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("lengths", [(40,), (40, 40), (40, 23)])
def test_there_is_a_mask_only_where_there_is_padding(
    lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mask of a long row would be very large."""
    model, masks = LanguageModel.load(dtype="bfloat16", device="cpu"), list[object]()
    model.can_pack = False
    plain = by_name(model, attention.SDPA, lengths)

    def noting(*args: Any, **named: Any) -> Any:
        masks.append(args[4])
        return attention.blocked_attention(*args, **named)

    monkeypatch.setitem(attention.ATTENTIONS._global_mapping, attention.NAME, noting)
    found = by_name(model, attention.NAME, lengths)
    assert model.probe.is_close(plain, found)
    assert all((mask is None) == (len(set(lengths)) == 1) for mask in masks) and masks


@pytest.mark.parametrize("lengths", [(40,), (40, 23, 3), (200, 5)])
def test_no_block_is_weighed_twice_for_its_padding(
    lengths: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, score = LanguageModel.load(dtype="bfloat16", device="cpu"), attention._scores
    model.can_pack, scored = False, list[int]()

    def noting(*args: torch.Tensor) -> torch.Tensor:
        scored.append(args[0].shape[2])
        return score(*args)

    monkeypatch.setattr(attention, "_scores", noting)
    by_name(model, attention.NAME, lengths)
    assert sum(scored) == max(lengths) * model.config.num_hidden_layers


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_a_cache_of_fixed_size_changes_nothing(name: str) -> None:
    """Its unused end is masked."""
    network, written = copy.deepcopy(tiny.network(name)), list[torch.Tensor]()
    prompt = torch.tensor([[3, 1, 4, 1, 5]])
    for kind in (attention.SDPA, attention.NAME):
        network.set_attn_implementation(kind)
        found = network.generate(
            prompt,
            max_new_tokens=6,
            do_sample=False,
            cache_implementation="static",
            return_dict_in_generate=True,
            output_logits=True,
        )
        written.append(torch.stack(found.logits))
    torch.testing.assert_close(*written, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "said"), [("cuda", [False]), ("cpu", [])])
def test_on_a_gpu_torch_attends_without_cudnn(
    kind: str, said: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[bool]()
    monkeypatch.setattr(torch.backends.cuda, "enable_cudnn_sdp", told.append)
    attention_choice.disable_cudnn_attention(SimpleNamespace(device=torch.device(kind)))
    assert told == said


DTYPES = ("float32", "bfloat16", "float16")


def timed(blocked: float, torchs: float) -> Any:
    """A measurement of the two attentions, in seconds."""
    return lambda *shape: (blocked, torchs)


@pytest.mark.parametrize(
    ("blocked", "torchs", "faster"),
    [(1.0, 3.0, attention.NAME), (3.0, 1.0, attention.PACKED), (0.99, 1.0, attention.PACKED)],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_faster_attention_is_chosen(
    dtype: str, blocked: float, torchs: float, faster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of about the same speed, torch's: it keeps its scores in float32."""
    monkeypatch.setattr(attention_choice, "attention_seconds", timed(blocked, torchs))
    model = LanguageModel.load(dtype=dtype, device="cpu")
    is_measured = dtype != "float16"  # whose exponents are too small for blocked attention
    assert model.model.config._attn_implementation == (faster if is_measured else attention.PACKED)
    assert model.can_pack and model.can_share_prefix


def test_both_attentions_are_timed_on_the_models_heads() -> None:
    assert all(0 < s < 10 for s in attention_choice.attention_seconds(4, 2, 8, torch.float32))


@pytest.mark.parametrize("name", [attention.NAME, attention.PACKED])
def test_if_logits_would_change_torchs_attention_stays(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = (1.0, 3.0) if name == attention.NAME else (3.0, 1.0)
    monkeypatch.setattr(attention_choice, "attention_seconds", timed(*times))
    monkeypatch.setattr(Probe, "is_close", lambda *_: False)
    network = copy.deepcopy(tiny.network("llama"))
    said = attention_choice.choose_attention(network, Probe.of([0], [*range(20)], network))
    assert network.config._attn_implementation == attention.SDPA
    assert said == "torch's attention (the model takes no other)"
