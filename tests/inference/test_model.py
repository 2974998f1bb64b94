"""Every kind of causal LM: the fast path equals a slow reference, with any other rows in a batch.

The reference is written here, naively: one unpadded row, one full forward pass, plain formulas.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import BartConfig, BertConfig, PreTrainedTokenizerFast, T5Config

from tests.support import tiny
from xl3m_core import LanguageModel, Measure, ModelError
from xl3m_core.inference.generation import generate_with_transformers, greedy_decode
from xl3m_core.inference.loading import best_dtype
from xl3m_core.inference.prefix_cache import CachedPrefix
from xl3m_core.measure import entropy

MEASURES: list[Measure] = ["entropy", "likelihood", "hybrid"]
PAIRS = [
    ("pump seven is down since noon, the hall is wet\n" * 2, "which pump is down?"),
    ("all quiet", "why?"),
    ("pressure low\npressure low\n", "what was the pressure in the hall, by ID?"),
    ("ünïcode ☃ 漢字 </s> <pad>\n", "which?"),
    ("x", "which pump is down?"),
]
PROMPT = "pump seven is down"


def twin(name: str, text: str, question: str, measure: Measure) -> float:
    """The certainty of one row, by plain formulas."""
    encode = tiny.model(name).encode
    suffix = encode([f"\nQuestion: {question}\nAnswer:"])[0]
    row = [0, *encode([text])[0], *suffix]
    with torch.no_grad():
        logits = tiny.network(name)(input_ids=torch.tensor([row])).logits[0].double()
    p = torch.softmax(logits, dim=-1).tolist()
    certain = sum(q * math.log(q) for q in p[-1] if q > 0)
    labels = tiny.engine(tiny.model(name)).encoded(question).labels
    own = [i for i, label in enumerate(labels, len(row) - len(suffix)) if label == row[i]]
    likely = sum(math.log(p[i - 1][row[i]]) for i in own)
    scores: dict[str, float] = {
        "entropy": certain,
        "likelihood": likely / len(own),
        "hybrid": certain + likely,
    }
    return scores[measure]


def greedy(network: Any, prompt: list[int], tokens: int, line: bool = True) -> list[int]:
    """Greedy decoding that reads the whole row for each token; stops as `generate` should."""
    ids = list(prompt)
    for _ in range(tokens):
        logits = network(input_ids=torch.tensor([ids])).logits
        ids.append(int(logits[0, -1].argmax()))
        text = tiny.tokenizer().decode(ids[len(prompt) :], skip_special_tokens=True)
        if ids[-1] == 1 or (line and "\n" in text.lstrip()):
            break
    return ids[len(prompt) :]


@pytest.mark.guarantee("Stream equals batch")
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("name", tiny.CONFIGS)
def test_scores_in_a_batch_alone_and_by_the_slow_twin_are_the_same(
    name: str, measure: Measure
) -> None:
    engine = tiny.engine(tiny.model(name), measure)
    batched = engine.score(PAIRS)
    alone = [engine.score([pair])[0] for pair in PAIRS]
    slow = [twin(name, text, question, measure) for text, question in PAIRS]
    assert batched == pytest.approx(slow, abs=2e-4)
    assert alone == pytest.approx(slow, abs=2e-4)
    assert max(slow) - min(slow) > 0.01, "a difference to be seen"


@pytest.mark.parametrize("name", tiny.PADDED)
def test_attention_models_take_rows_of_any_length_together(name: str) -> None:
    watched = tiny.Watched(name)
    assert watched.can_pad
    tiny.engine(watched).score(PAIRS)
    assert [len(batch) for batch in watched.batches] == [len(PAIRS)]


@pytest.mark.parametrize("name", tiny.UNPADDED)
def test_models_with_a_running_state_get_rows_of_one_length(name: str) -> None:
    watched = tiny.Watched(name)
    assert not watched.can_pad
    tiny.engine(watched).score([*PAIRS, *PAIRS])
    assert all(len({len(row) for row in batch}) == 1 for batch in watched.batches)
    assert max(len(batch) for batch in watched.batches) > 1
    with pytest.raises(ModelError, match="one length"):
        watched.logits([[1], [1, 2]], 1)


def test_a_model_without_attention_mask_gets_rows_of_one_length() -> None:
    model = LanguageModel(tiny.Maskless(), tiny.tokenizer())
    assert not model.can_pad
    scores = tiny.engine(model).score(PAIRS)
    assert scores == pytest.approx([twin("llama", *pair, "entropy") for pair in PAIRS], abs=2e-4)


@pytest.mark.parametrize("kind", ["default", "linear", "dynamic", "longrope"])
def test_a_model_with_dynamic_rope_is_for_one_thread_and_extends_no_cache(
    kind: str,
) -> None:
    ropes: dict[str, Any] = {"rope_type": kind, "rope_theta": 10_000.0, "factor": 2.0}
    if kind == "longrope":
        ropes |= {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
        ropes |= {"original_max_position_embeddings": 96}
    network = tiny.make("llama", rope_parameters=ropes)
    model = LanguageModel(network, tiny.tokenizer(), tiny.WINDOW)
    assert model.thread_safe is (kind in ("default", "linear"))
    assert tiny.engine(model).executor.workers == 1 or model.thread_safe
    prompt = model.prompt(PROMPT * 40)[:90]  # beyond 96 with what is written
    assert model.generate(prompt, 24)[0] == model.decode(greedy(network, prompt, 24))


class Masked(tiny.Maskless):
    """A model that takes a mask; `disturb`: the factor of its logits in a wide batch."""

    def __init__(self, disturb: float) -> None:
        super().__init__()
        self.disturb = disturb

    def forward(self, input_ids: Any, use_cache: Any = None, attention_mask: Any = None) -> Any:
        output = self.inner(input_ids=input_ids, attention_mask=attention_mask)
        wide = input_ids.shape[1] > 4
        output.logits = (8 * output.logits).bfloat16() * (self.disturb if wide else 1)
        return output


@pytest.mark.parametrize(("disturb", "pads"), [(1, True), (1.01, True), (1.2, False)])
def test_rounding_is_not_taken_for_a_disturbance_nor_a_disturbance_for_rounding(
    disturb: float, pads: bool
) -> None:
    assert LanguageModel(Masked(disturb), tiny.tokenizer()).can_pad is pads


def test_positions_that_padding_shifts_are_noticed() -> None:
    class Shifted(tiny.Maskless):
        def forward(self, input_ids: Any, use_cache: Any = None, attention_mask: Any = None) -> Any:
            columns = torch.arange(input_ids.shape[1])[None]
            return tiny.network("gpt2")(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=columns
            )

    assert not LanguageModel(Shifted(), tiny.tokenizer()).can_pad


@pytest.mark.parametrize("name", tiny.PADDED)
def test_there_are_as_many_columns_as_requested_even_before_a_row(name: str) -> None:
    model = tiny.model(name)
    logits = model.logits([[0, 5], [7]], 6)
    assert logits.shape == (2, 6, tiny.VOCAB)
    assert torch.allclose(logits[0, 4:], model.logits([[0, 5]], 2)[0], atol=1e-4)


def test_logits_are_computed_for_the_positions_needed_only() -> None:
    model, read = tiny.Watched(), list[int]()
    rows, ends = [[7] * 3, [8] * 100, [9] * 100], [[1, 2], [3, 4, 5]]
    hook = model.model.lm_head.register_forward_pre_hook(
        lambda _, args: read.append(args[0].shape[1])
    )
    shared = [*model.suffix_logits(rows, ends, [6, 6])]
    hook.remove()
    assert read == [3 + 4, 5], "all of the short row, four of the long ones; the ends"
    for end, own in zip(ends, shared, strict=True):
        for row, found in zip(rows, own, strict=True):
            known = min(6, len(row) + len(end))
            alone = model.logits([row + end], known)[0]
            torch.testing.assert_close(found[-known:], alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["gpt2", "mistral", "gemma3", "bloom", "mamba", "rwkv"])
def test_generation_is_the_argmax_one_token_after_another(name: str) -> None:
    model = tiny.model(name)
    prompt = model.prompt(PROMPT)
    text, first = model.generate(prompt, 24)
    assert text == model.decode(greedy(tiny.network(name), prompt, 24))
    logits = tiny.network(name)(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    p = torch.softmax(logits, dim=-1)
    assert float(entropy(first[None])[0]) == pytest.approx(-float((p * p.log()).sum()), abs=1e-4)


@pytest.mark.parametrize("most", [1, 24])
@pytest.mark.parametrize(
    "name", [name for name in tiny.CONFIGS if tiny.model(name).can_share_prefix]
)
def test_greedy_decoding_is_that_of_transformers(name: str, most: int) -> None:
    model = tiny.model(name)
    prompt, heard = torch.tensor([model.prompt(PROMPT)]), list[list[int]]()

    def over(written: list[int]) -> bool:
        heard.append([*written])
        return len(written) == 20

    ours, first = greedy_decode(
        model.model, CachedPrefix(), prompt, most, model.eos_token_ids, over
    )
    count = len(heard)
    theirs, logits = generate_with_transformers(model.model, prompt, most, 2, over)
    assert ours == theirs
    assert heard[:count] == heard[count:] == [ours[:n] for n in range(1, len(ours) + 1)]
    assert torch.allclose(first.float(), logits.float(), atol=1e-4)


def test_an_answer_repeats_its_context_whatever_the_generation_config_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny.model("llama")
    prompt = model.prompt(PROMPT)
    expected = model.generate(prompt, 24)[0]
    for options in ({"repetition_penalty": 9.0}, {"no_repeat_ngram_size": 1}):
        with monkeypatch.context() as patch:
            for name, value in options.items():
                patch.setattr(model.model.generation_config, name, value)
            assert model.generate(prompt, 24)[0] == expected


def test_with_a_chat_template_an_answer_may_have_lines() -> None:
    chat = LanguageModel(tiny.network("llama"), tiny.tokenizer(tiny.CHAT))
    prompt = chat.prompt(PROMPT)
    answer, _ = chat.generate(prompt, 40)
    assert answer == chat.decode(greedy(tiny.network("llama"), prompt, 40, line=False))


@pytest.mark.parametrize("name", ["gpt2", "llama", "qwen3", "mamba"])
@pytest.mark.parametrize("chat", [None, tiny.CHAT])
def test_pieces_of_an_answer_join_to_its_text(name: str, chat: str | None) -> None:
    model = LanguageModel(tiny.network(name), tiny.tokenizer(chat), tiny.WINDOW)
    pieces: list[str] = []
    text, _ = model.generate(model.prompt(PROMPT), 40, pieces.append)
    assert "".join(pieces) == text.strip()
    assert all(pieces)


@pytest.mark.parametrize("chat", [None, tiny.CHAT])
def test_names_of_special_tokens_in_a_text_stay_text(chat: str | None) -> None:
    model = LanguageModel(tiny.network("llama"), tiny.tokenizer(chat))
    hostile = "a </s> b <s> c <pad><|im_end|>"
    assert not {0, 1, 2} & set(model.encode([hostile])[0])
    assert model.decode(model.encode([hostile])[0]) == hostile
    prompt, frame = model.prompt(hostile), model.prompt("")
    assert [i for i in prompt if i < 3] == [i for i in frame if i < 3]
    assert len(prompt) == len(frame) + len(model.encode([hostile])[0])


def test_a_chat_prompt_is_the_template_with_the_content_in_it() -> None:
    model = LanguageModel(tiny.network("llama"), tiny.tokenizer(tiny.CHAT))
    turn = [{"role": "user", "content": PROMPT}]
    whole = model.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    ids = model.prompt(PROMPT)
    assert model.tokenizer.decode(ids) == whole
    assert ids.count(0) == 2, "the template's own <s>, read as special"


def test_a_tokenizer_without_start_token_scores_rows_without_one() -> None:
    bare = LanguageModel(tiny.network("qwen2"), tiny.tokenizer(bos_token=None))
    assert bare.bos == []
    assert bare.prompt("pump")[0] != 0
    engine = tiny.engine(bare, "likelihood")
    pairs = [("", "which pump?"), ("pump seven is down", "which?"), ("", "why?")]
    assert engine.score(pairs) == pytest.approx([engine.score([pair])[0] for pair in pairs])
    row, labels = list(engine.suffix("which pump?")), engine.encoded("which pump?").labels
    log_p = tiny.network("qwen2")(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)
    own = [i for i in range(1, len(row)) if labels[i] == row[i]]
    following = [float(log_p[i - 1, row[i]]) for i in own]
    assert engine.score(pairs)[0] == pytest.approx(sum(following) / len(following), abs=2e-4)


@pytest.mark.parametrize("name", sorted(set(tiny.CONFIGS) - {"mamba"}))
def test_the_window_is_read_from_the_config(name: str) -> None:
    assert LanguageModel(tiny.network(name), tiny.tokenizer()).window == tiny.WINDOW


def test_a_window_is_given_else_in_the_config_else_the_tokenizers() -> None:
    mamba, llama = tiny.network("mamba"), tiny.network("llama")
    assert LanguageModel(llama, tiny.tokenizer(), 99).window == 99
    assert LanguageModel(mamba, tiny.tokenizer(model_max_length=77)).window == 77
    with pytest.raises(ModelError, match="mamba does not say how long its window is"):
        LanguageModel(mamba, tiny.tokenizer())


@pytest.mark.parametrize("name", ["gpt2", "gemma3", "rwkv"])
def test_a_saved_model_loads_and_scores_the_same(name: str, tmp_path: Path) -> None:
    tiny.save(tiny.network(name), tmp_path)
    loaded = LanguageModel.load(tmp_path, dtype="float32")
    assert tiny.engine(loaded).score(PAIRS) == tiny.engine(tiny.model(name)).score(PAIRS)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as refused:
        LanguageModel.load(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("config", [BartConfig(), T5Config()])
def test_an_encoder_decoder_is_refused(config: Any, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    assert "encoder-decoder" in refusal(tmp_path)


def test_a_model_that_reads_what_follows_is_refused(tmp_path: Path) -> None:
    config = BertConfig(vocab_size=tiny.VOCAB, hidden_size=32, num_attention_heads=4)
    tiny.save(tiny.made(config), tmp_path)
    assert "not a causal LM" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{}"),
        ("config.json", "not json"),
        ("config.json", '{"model_type": "no-such-model"}'),
        ("model.safetensors", "not tensors"),
        ("tokenizer.json", "{}"),
        ("notes.txt", "nothing of a model"),
    ],
)
def test_a_folder_of_nonsense_is_refused(file: str, content: str, tmp_path: Path) -> None:
    if file != "notes.txt":
        tiny.save(tiny.network("llama"), tmp_path)
    (tmp_path / file).write_text(content)
    assert str(tmp_path) in refusal(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    tiny.save(tiny.network("llama"), tmp_path)
    tiny.network("gpt2").config.save_pretrained(tmp_path)
    assert "no weights for" in refusal(tmp_path)


def test_a_type_of_numbers_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    tiny.save(tiny.network("llama"), tmp_path)
    with pytest.raises(ModelError):
        LanguageModel.load(tmp_path, dtype="float99")


def test_a_graphics_card_multiplies_in_bfloat16() -> None:
    assert best_dtype("cuda:0") == torch.bfloat16
    assert best_dtype("cpu") in (torch.bfloat16, torch.float32)


def test_ids_from_within_a_text_keep_their_leading_space() -> None:
    words = Tokenizer(
        WordLevel({"<unk>": 0, "\u2581hello": 1, "\u2581world": 2, "\u2581x": 3}, "<unk>")
    )
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=words, unk_token="<unk>")
    model = LanguageModel(tiny.network("llama"), tokenizer, tiny.WINDOW)
    assert model.decode([2]) == "world"
    assert model.decode_fragment([1]) + model.decode_fragment([2]) == " hello world"


@pytest.mark.guarantee("Dead letters")
def test_an_id_the_tokenizer_does_not_have_is_refused() -> None:
    model = tiny.model()
    with pytest.raises(IndexError, match=f"no token {tiny.VOCAB}"):
        model.decode_fragment([5, tiny.VOCAB])
    assert model.decode_fragment([tiny.VOCAB - 1])


def test_many_threads_read_texts_at_once_whatever_the_tokenizer_is_told_meanwhile() -> None:
    model, texts = tiny.model(), ["hello world", "a b c", ""] * 9
    expected = model.encode(texts)
    model.tokenizer.backend_tokenizer.enable_truncation(1)
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(model.encode, [texts] * 50)] == [expected] * 50


def test_half_a_surrogate_pair_is_read_as_a_replacement_character() -> None:
    whole, odd = tiny.model().encode(["a\N{REPLACEMENT CHARACTER}b", "a\udcffb"])
    assert whole == odd
