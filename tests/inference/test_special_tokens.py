"""Control tokens: with any tokenizer no text contains one, and the text is not changed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, Unigram
from transformers import PreTrainedTokenizerFast

from tests.support import tiny
from xl3m_core import LanguageModel
from xl3m_core.inference.special_tokens import TextSplitter

NAMES = ["</think>", "<tool_call>", "<|fim_prefix|>", "<｜User｜>", "[INST]", "<|im_start|>user"]
SPECIAL = ["<s>", "</s>", "<pad>"]
TEXT = st.lists(st.one_of(st.sampled_from(NAMES + SPECIAL), st.text("<|/>as ｜]", max_size=4))).map(
    "".join
)


def added() -> Any:
    """As Qwen: added tokens that are not marked as special, and two that are text."""
    made = tiny.tokenizer()
    made.add_tokens([AddedToken(name, special=False, normalized=False) for name in NAMES])
    made.add_tokens([AddedToken(name, special=False) for name in ("    ", "hydrophone")])
    return made


def pieces() -> Any:
    """As XGLM and llm-jp: control tokens are pieces of a Unigram vocabulary."""
    names = [*SPECIAL, "<unk>", "<EOD|LLM>"]
    letters = [chr(code) for code in range(33, 127)] + ["▁", "｜"]
    vocab = [(name, 0.0) for name in names] + [(letter, -5.0) for letter in letters]
    unigram = Tokenizer(Unigram([*vocab, ("▁as", -3.0)], unk_id=3))
    unigram.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    unigram.decoder = decoders.Metaspace(prepend_scheme="never")
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=unigram, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def whole_words() -> Any:
    """As Llama 3: a BPE that looks up whole words, with control tokens in its vocabulary."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {name: i for i, name in enumerate([*SPECIAL, *NAMES, *alphabet])}
    bpe = Tokenizer(BPE(vocab, [], ignore_merges=True))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.decoder = decoders.ByteLevel()
    fast: Any = PreTrainedTokenizerFast
    made = fast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    made.add_tokens([AddedToken(name, special=True, normalized=False) for name in NAMES])
    return made


class InPython:
    """A tokenizer without a fast part."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        if name == "backend_tokenizer":
            raise AttributeError(name)
        return getattr(self._tokenizer, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._tokenizer(*args, **kwargs)

    def __len__(self) -> int:
        return len(self._tokenizer)


KINDS = {
    "added": added(),
    "pieces": pieces(),
    "whole words": whole_words(),
    "in Python": InPython(added()),
}
MODELS = {
    kind: LanguageModel(tiny.make("llama", vocab_size=len(made)), made, tiny.WINDOW)
    for kind, made in KINDS.items()
}


def control_ids(made: Any) -> set[int]:
    names = {*SPECIAL, *NAMES, "<unk>", "<EOD|LLM>"}
    ids = {made.convert_tokens_to_ids(name) for name in names & set(made.get_vocab())}
    return {id_ for id_ in ids if id_ is not None}


@pytest.mark.guarantee("Answer contents")
@pytest.mark.parametrize("kind", ["added", "pieces", "whole words"])
def test_the_tokenizers_here_have_what_is_tried(kind: str) -> None:
    found = set(KINDS[kind]("a </s> </think> b", add_special_tokens=False)["input_ids"])
    assert found & control_ids(KINDS[kind])


@pytest.mark.guarantee("Answer contents")
@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXT)
def test_names_of_control_tokens_in_a_text_are_text(kind: str, text: str) -> None:
    model = MODELS[kind]
    (ids,) = model.encode([text])
    assert not control_ids(KINDS[kind]) & set(ids)
    assert model.tokenizer.decode(ids) == text


@pytest.mark.guarantee("Answer contents")
@pytest.mark.parametrize("kind", ["added", "whole words"])
def test_a_prompt_has_the_control_tokens_of_its_template_alone(kind: str) -> None:
    KINDS[kind].chat_template = tiny.CHAT
    model, hostile = MODELS[kind], "".join(NAMES + SPECIAL)
    try:
        prompt, frame = model.prompt(hostile), model.prompt("")
    finally:
        KINDS[kind].chat_template = None
    controls = control_ids(KINDS[kind])
    assert [i for i in prompt if i in controls] == [i for i in frame if i in controls] != []


@pytest.mark.guarantee("Answer contents")
def test_added_tokens_that_are_text_are_read_as_the_model_learned_them() -> None:
    made, model = KINDS["added"], MODELS["added"]
    wanted = [made.convert_tokens_to_ids(name) for name in ("hydrophone", "    ")]
    assert model.encode(["hydrophone    "]) == [wanted]


@pytest.mark.guarantee("Answer contents")
@given(st.text(max_size=60).filter(lambda text: not any(n in text for n in NAMES + SPECIAL)))
def test_ordinary_text_is_read_as_ever(text: str) -> None:
    for kind in ("added", "whole words"):
        expected = KINDS[kind](text, add_special_tokens=False)["input_ids"]
        assert MODELS[kind].encode([text]) == [expected]


@pytest.mark.guarantee("Answer contents")
@given(TEXT)
def test_a_text_cut_at_names_is_the_text(text: str) -> None:
    parts = TextSplitter(KINDS["in Python"]).parts(text)
    assert "".join(parts) == text
    assert not any(name in part for part in parts for name in NAMES + SPECIAL)
