"""The faster type of weights is chosen, by measurement, and bfloat16 only if it pays."""

import logging
from types import SimpleNamespace

import pytest
import torch

from tests.support import tiny
from xl3m_core.inference import dtype
from xl3m_core.inference.head import float32_linear, use_float32_logits


@pytest.fixture(autouse=True)
def unmeasured() -> None:
    dtype._measured.cache_clear()


@pytest.mark.parametrize(
    ("in_float32", "in_bfloat16", "chosen"),
    [
        (5.0, 1.0, torch.bfloat16),
        (1.2, 1.0, torch.float32),
        (1.0, 1.0, torch.float32),
        (1.0, 5.0, torch.float32),
    ],
)
def test_the_faster_type_is_chosen_with_a_margin_for_float32_and_logged(
    in_float32: float,
    in_bfloat16: float,
    chosen: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = list[tuple[int, int]]()

    def seconds(*shape: int) -> tuple[float, float]:
        calls.append((shape[0], shape[1]))
        return in_float32 / 1e3, in_bfloat16 / 1e3

    monkeypatch.setattr(dtype, "product_seconds", seconds)
    config = SimpleNamespace(hidden_size=576, intermediate_size=1536)
    with caplog.at_level(logging.INFO, "xl3m"):
        assert dtype.best_dtype("cpu", config) == chosen
        assert dtype.best_dtype("cpu", config) == chosen
    assert calls == [(576, dtype.MAX_SIZE)], "once a process, of the model's shapes"
    (line,) = caplog.messages
    assert f"{in_float32:.2f} ms in float32" in line and f"{in_bfloat16:.2f} ms in bfloat16" in line
    assert line.startswith(f"dtype {str(chosen).removeprefix('torch.')}")


def test_both_types_are_really_timed() -> None:
    assert all(0 < seconds < 10 for seconds in dtype.product_seconds(64, 64))
    assert dtype.best_dtype("cpu", tiny.network("llama").config) in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (None, (512, 1024)),
        (SimpleNamespace(hidden_size=576, intermediate_size=960), (576, 960)),
        (SimpleNamespace(hidden_size=8192, intermediate_size=[1, 2]), (1024, 1024)),
    ],
)
def test_the_sizes_of_the_product_are_the_models_or_usual_ones(
    config: object, sizes: tuple[int, int]
) -> None:
    assert dtype.sizes(config) == sizes


@pytest.mark.parametrize(("has_it", "chosen"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_takes_bfloat16_if_it_has_it(
    has_it: bool, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dtype, "_has_bfloat16", lambda: has_it)
    assert dtype.best_dtype("cuda:0") == chosen
    assert dtype.best_dtype("mps") == torch.float32


@pytest.mark.parametrize("biased", [True, False])
@torch.inference_mode()
def test_logits_of_bfloat16_are_not_rounded_to_it(biased: bool) -> None:
    layer = torch.nn.Linear(16, 5000, bias=biased).bfloat16()
    inputs = 8 * torch.randn(2, 3, 16).bfloat16()
    wanted = torch.nn.functional.linear(
        inputs.double(), layer.weight.double(), layer.bias.double() if biased else None
    )
    found = float32_linear(layer, inputs)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-4)
    assert (layer(inputs).double() - wanted).abs().max() > 100 * (found - wanted).abs().max()


def test_only_logits_of_a_shorter_type_are_computed_in_float32() -> None:
    ids = torch.tensor([[3, 4, 5]])
    network = tiny.make("llama")
    assert not use_float32_logits(network)
    network = network.bfloat16()
    assert network(input_ids=ids).logits.dtype == torch.bfloat16
    assert use_float32_logits(network)
    assert network(input_ids=ids).logits.dtype == torch.float32
    assert not use_float32_logits(torch.nn.Linear(2, 2))
