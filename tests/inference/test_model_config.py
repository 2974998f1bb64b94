"""Wrong numbers in a model's files are refused, in one line."""

from pathlib import Path
from typing import Any

import pytest
from transformers import FalconConfig

from stream_app.settings import Settings
from tests.support import tiny
from xl3m_core import XL3M, Engine, LanguageModel, ModelError
from xl3m_core.inference.loading import load
from xl3m_core.inference.model_config import context_window, question_template, recommended_k

ROPE = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0}


def refusal(call: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(ModelError) as refused:
        call(*args, **kwargs)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "gemma3", "rwkv"])
def test_a_window_beyond_the_models_places_is_refused_with_the_numbers(name: str) -> None:
    said = refusal(LanguageModel, tiny.network(name), tiny.tokenizer(), 4096)
    assert "4096" in said and f"reads {tiny.WINDOW} at most" in said
    config = tiny.network(name).config.get_text_config()
    assert context_window(config, tiny.tokenizer(), tiny.WINDOW) == tiny.WINDOW


@pytest.mark.parametrize("name", ["bloom", "mamba"])
def test_what_has_no_places_takes_any_window(name: str) -> None:
    assert context_window(tiny.network(name).config, tiny.tokenizer(), 4096) == 4096


def test_distances_take_any_window_though_the_config_names_places() -> None:
    assert context_window(FalconConfig(alibi=True), tiny.tokenizer(), 10**5) == 10**5
    assert "2048 at most" in refusal(context_window, FalconConfig(), tiny.tokenizer(), 10**5)


def test_scaled_places_reach_as_far_as_they_are_scaled() -> None:
    scaled = tiny.make("llama", rope_parameters=ROPE | {"original_max_position_embeddings": 192})
    assert context_window(scaled.config, tiny.tokenizer(), 768) == 768
    assert "768 at most" in refusal(context_window, scaled.config, tiny.tokenizer(), 769)
    layers = tiny.make("gemma3").config
    layers.rope_parameters = {"full_attention": ROPE | {"rope_type": "linear"}}
    assert context_window(layers, tiny.tokenizer(), 768) == 768


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    small = tiny.make("llama", vocab_size=200)
    said = refusal(LanguageModel, small, tiny.tokenizer(), tiny.WINDOW)
    assert "tokens up to 299" in said and "for 0 to 199 only" in said
    small.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    assert refusal(XL3M.load, tmp_path) == said


@pytest.mark.parametrize("k", ["four", 0, -1, 2.5, True, [4]])
def test_a_k_that_is_no_number_of_segments_is_refused(k: Any) -> None:
    network = tiny.make("llama")
    network.config.xl3m_k = k
    assert "xl3m_k" in refusal(LanguageModel, network, tiny.tokenizer())
    assert refusal(recommended_k, network.config)


@pytest.mark.parametrize("template", ["What is it?", "{Question}", 7, ["{question}"]])
def test_a_template_without_the_question_is_refused(template: Any) -> None:
    network = tiny.make("llama")
    network.config.xl3m_question_template = template
    assert "{question}" in refusal(LanguageModel, network, tiny.tokenizer())
    assert refusal(question_template, network.config)


def test_a_file_of_a_model_is_not_the_model(tmp_path: Path) -> None:
    tiny.save(tiny.network("llama"), tmp_path)
    assert "give the folder" in refusal(load, str(tmp_path / "model.safetensors"))


def test_settings_that_ask_for_too_much_are_refused_as_a_model_error() -> None:
    from stream_app.engine import create_engine

    assert "512 at most" in refusal(create_engine, Settings(context_window=4096))


def test_a_model_that_fails_in_the_scan_is_an_answer_with_an_error() -> None:
    class Failing(Engine):
        def score(self, pairs: Any) -> list[float]:
            raise ModelError("rows of one length only")

    engine = Failing(tiny.model(), tiny.engine(tiny.model()).method)
    answer = XL3M(engine).answer("pump seven is down\n" * 40, "which?")
    assert answer.error == "the model failed: rows of one length only"
    assert answer.grounded is None
