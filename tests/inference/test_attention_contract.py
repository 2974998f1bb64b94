"""Contract: names of torch and transformers that the fast attention path needs.

A model that cannot use the fast path keeps torch's own attention, with correct results: an upgrade
that renames one of these would only make scoring two to three times slower. So this test fails,
with the name.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from tests.support import tiny
from xl3m_core import LanguageModel
from xl3m_core.inference import attention, attention_choice

ROWS = [[5, 6, 7, 8] * 10, [9, 10, 11] * 11, [12] * 39]
SUFFIXES = [[13, 14], [15, 16, 17]]
PROMPT = [5, 6, 7, 8] * 10


def bundled() -> LanguageModel:
    """The model that comes with the package, as a CPU with fast bfloat16 loads it, where blocked
    attention takes half as long as torch's."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(attention_choice, "attention_seconds", lambda *shape: (1.0, 2.0))
        return LanguageModel.load(dtype="bfloat16", device="cpu")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return bundled()


# -- the path is taken ---------------------------------------------------------------------------


def off_fast_path(model: LanguageModel) -> list[str]:
    """The fast paths that the model does not support."""
    abilities = {
        "blocked attention": model.model.config._attn_implementation == attention.NAME,
        "padded rows": model.can_pad,
        "packed rows": model.can_pack,
        "shared prefixes": model.can_share_prefix,
        "prefix cache": model.can_extend_cache and model.prefix_cache.max_bytes > 0,
        "several worker threads": model.thread_safe,
    }
    return [name for name, able in abilities.items() if not able]


def test_the_bundled_model_takes_the_fast_path(model: LanguageModel) -> None:
    assert off_fast_path(model) == []


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each attention was called."""
    counts = Counter[str]()
    blocked, sdpa = attention._attended, attention.ATTENTIONS[attention.SDPA]

    def counted(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **named: Any) -> Any:
            counts[name] += 1
            return call(*args, **named)

        return counting

    monkeypatch.setattr(attention, "_attended", counted("blocked", blocked))
    attentions = attention.ATTENTIONS._global_mapping
    monkeypatch.setitem(attentions, attention.SDPA, counted("sdpa", sdpa))
    return counts


def reads(model: LanguageModel) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every kind of forward pass with several tokens."""
    yield "packed rows", lambda: model.packed_logits(ROWS, 2)
    yield "shared prefixes", lambda: [*model.suffix_logits(ROWS, SUFFIXES, [2, 2])]
    yield "prefill", lambda: model.prefill(PROMPT)


def test_every_layer_attends_in_blocks_however_rows_are_read(
    model: LanguageModel, calls: Counter[str]
) -> None:
    for name, read in reads(model):
        calls.clear()
        read()
        assert set(calls) == {"blocked"}, name
        assert calls["blocked"] >= model.config.num_hidden_layers, name


def test_padded_rows_attend_in_blocks_too(model: LanguageModel, calls: Counter[str]) -> None:
    model.can_pack = False
    try:
        model.logits(ROWS, 2)
    finally:
        model.can_pack = True
    assert calls == {"blocked": model.config.num_hidden_layers}


def fail(*_: Any, **__: Any) -> Any:
    raise AttributeError("renamed")


BREAKS: dict[str, tuple[Any, str, Any]] = {
    "an attention is called with other arguments": (attention, "_gathered", fail),
    "no class can be switched": (
        PreTrainedModel, "_can_set_attn_implementation", classmethod(lambda _: False),
    ),
    "another attention is the default": (attention_choice, "SDPA", "other"),
    "a cache has no layers to crop": (DynamicCache, "crop", fail),
}  # fmt: skip


@pytest.mark.parametrize("broken", BREAKS)
def test_a_model_off_the_fast_path_is_noticed(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*BREAKS[broken])
    assert off_fast_path(bundled()) != []


# -- the private names -----------------------------------------------------------------------------


def test_config_attn_implementation_names_the_attention_and_starts_as_sdpa() -> None:
    network = tiny.make("llama")
    assert network.config._attn_implementation == attention.SDPA == "sdpa"
    network.set_attn_implementation(attention.NAME)
    assert network.config._attn_implementation == attention.NAME


def test_can_set_attn_implementation_is_asked_of_the_class() -> None:
    assert tiny.network("llama")._can_set_attn_implementation() is True
    assert inspect.signature(PreTrainedModel._can_set_attn_implementation).parameters == {}


def test_is_stateful_tells_models_with_a_running_state() -> None:
    stateful = {name for name in tiny.CONFIGS if tiny.network(name)._is_stateful}
    assert stateful == set(tiny.UNPADDED)


def test_an_attention_is_registered_and_found_by_its_name() -> None:
    assert attention.ATTENTIONS[attention.NAME] is attention.blocked_attention
    assert attention.MASKS[attention.NAME] is attention.mask
    assert attention.ATTENTIONS[attention.PACKED] is attention.packed_attention
    assert attention.MASKS[attention.PACKED] is attention.MASKS[attention.SDPA]


def test_an_attention_gets_five_positions_and_the_rest_by_name() -> None:
    """Of (module, query, key, value, mask); unknown names of the caller's are handed through."""
    network, seen = tiny.make("llama"), list[dict[str, Any]]()

    def noting(module: Any, *args: torch.Tensor, **named: Any) -> Any:
        seen.append({"shapes": [tuple(x.shape) for x in args[:3]], "mask": args[3], **named})
        assert module.is_causal is True
        return attention.ATTENTIONS[attention.SDPA](module, *args, **named)

    attention.ATTENTIONS.register("noting", noting)
    network.set_attn_implementation("noting")
    mask, positions = torch.zeros(1, 1, 1, 1), torch.arange(6)[None]
    ids = torch.ones(1, 6, dtype=torch.long)
    keep = torch.tensor([2, 5])
    output = network(
        input_ids=ids, attention_mask=mask, position_ids=positions, packed="handed through",
        use_cache=False, logits_to_keep=keep,
    )  # fmt: skip
    assert output.logits.shape == (1, 2, tiny.VOCAB), "the logits of the requested positions only"
    for call in seen:
        assert call["shapes"] == [(1, 4, 6, 8), (1, 2, 6, 8), (1, 2, 6, 8)]
        assert call["mask"] is mask, "a mask of four dimensions goes through as it is"
        assert call["packed"] == "handed through"
        assert call["scaling"] == 8**-0.5 and not call["dropout"]
    assert len(seen) == 2


def test_torchs_attention_takes_the_same_and_returns_rows_of_heads() -> None:
    query, key, value = torch.randn(3, 2, 4, 6, 8)
    sdpa = attention.ATTENTIONS[attention.SDPA]
    found, weights = sdpa(torch.nn.Module(), query, key, value, None, scaling=0.5, is_causal=True)
    assert found.shape == (2, 6, 4, 8)
    assert weights is None


def test_torchs_mask_is_boolean_or_none() -> None:
    network, masks = tiny.make("llama"), list[Any]()

    def noting(*args: Any, **named: Any) -> Any:
        masks.append((attention.MASKS[attention.SDPA](*args, **named), named["dtype"]))
        return masks[-1][0]

    attention.ATTENTIONS.register("noting", attention.ATTENTIONS[attention.SDPA])
    attention.MASKS.register("noting", noting)
    network.set_attn_implementation("noting")
    ids, padded = torch.ones(2, 3, dtype=torch.long), torch.tensor([[0, 1, 1], [1, 1, 1]])
    network(input_ids=ids, attention_mask=padded)
    network(input_ids=ids)
    (mask, dtype), (none, _) = masks
    assert mask.dtype == torch.bool and mask.shape == (2, 1, 3, 3)
    assert dtype == torch.float32 and none is None


def test_a_cache_is_layers_of_keys_and_values_that_can_be_cropped() -> None:
    cache: Any = DynamicCache()
    tiny.network("llama")(input_ids=torch.ones(1, 5, dtype=torch.long), past_key_values=cache)
    assert [type(layer) for layer in cache.layers] == [DynamicLayer] * 2
    cache.crop(-2)
    assert cache.get_seq_length() == 3
    assert {tuple(x.shape) for x in (cache.layers[0].keys, cache.layers[1].values)} == {
        (1, 2, 3, 8)
    }


def test_a_tokenizer_has_a_fast_part_that_can_be_copied() -> None:
    backend = tiny.tokenizer().backend_tokenizer
    assert type(backend).from_str(backend.to_str()).decode([5]) == backend.decode([5])
    assert isinstance(backend.encode_special_tokens, bool)
