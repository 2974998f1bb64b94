"""Streamed text: each token is decoded once, and the text equals decoding all tokens again."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from tests.inference.test_special_tokens import InPython
from tests.support import tiny
from xl3m_core import LanguageModel
from xl3m_core.inference.generation import LOOP_COPIES, LOOP_TOKENS, TextStreamer, is_loop
from xl3m_core.inference.tokenization import IncrementalDecoder, TokenCodec


def cleaning() -> Any:
    """A tokenizer that cleans up its text after the fast part: no space before a comma."""
    words = ["<unk>", *["it", "'s", "a", ",", "b", ".", "c", "?", "d", "three"]]
    level = Tokenizer(WordLevel({f"▁{w}" if i else w: i for i, w in enumerate(words)}, "<unk>"))
    level.pre_tokenizer, level.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    fast: Any = PreTrainedTokenizerFast
    options = {"unk_token": "<unk>", "clean_up_tokenization_spaces": True}
    return fast(tokenizer_object=level, **options)


CODECS = {
    "bytes": TokenCodec(tiny.tokenizer()),
    "spaced": TokenCodec(tiny.spaced_tokenizer()),
    "cleaning": TokenCodec(cleaning()),
    "in Python": TokenCodec(InPython(tiny.tokenizer())),
}
TEXT = st.text(st.sampled_from("ab ,.'\n☃漢字é😀\ufffd"), max_size=20)


def decoded_again(codec: TokenCodec, ids: Sequence[int]) -> Iterator[str]:
    """The slow twin: the text after each token, all of them decoded again."""
    given = ""
    for count in range(1, len(ids) + 1):
        given += codec.decode(ids[:count]).rstrip("\ufffd")[len(given) :]
        yield given


def streamed(codec: TokenCodec, ids: Sequence[int]) -> Iterator[str]:
    decoder = IncrementalDecoder(codec)
    for token in ids:
        decoder.add(token)
        yield decoder.text


def test_only_a_fast_tokenizer_whose_text_is_not_cleaned_up_streams() -> None:
    streams = {name: codec.can_stream for name, codec in CODECS.items()}
    assert streams == {"bytes": True, "spaced": True, "cleaning": False, "in Python": False}


@pytest.mark.parametrize("name", CODECS)
@given(TEXT)
def test_after_each_token_there_is_the_text_of_all_tokens_so_far(name: str, text: str) -> None:
    codec = CODECS[name]
    ids = codec.encode([text])[0]
    assert [*streamed(codec, ids)] == [*decoded_again(codec, ids)]


def one_replacement(text: str) -> str:
    """The text with one replacement character for several in a row."""
    return re.sub("\ufffd+", "\ufffd", text)


@pytest.mark.parametrize("name", CODECS)
@given(st.data())
def test_tokens_in_any_order_stream_as_they_decode(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    ids = data.draw(st.lists(st.integers(0, len(codec.tokenizer) - 1), max_size=12))
    # Bytes that form no character may be one replacement character or one each.
    stream, again = streamed(codec, ids), decoded_again(codec, ids)
    assert [*map(one_replacement, stream)] == [*map(one_replacement, again)]


@pytest.mark.parametrize("name", CODECS)
@given(TEXT)
def test_the_pieces_join_to_the_text_without_blanks_at_its_ends(name: str, text: str) -> None:
    codec, pieces = CODECS[name], list[str]()
    ids = codec.encode([text])[0]
    decoder, streamer = IncrementalDecoder(codec), TextStreamer(pieces.append)
    for token in ids:
        streamer.put(decoder.add(token))
        so_far = decoder.text.strip()
        assert "".join(pieces) == so_far
        assert streamer.has_line_break is ("\n" in decoder.text.lstrip())
    streamer.end(whole := codec.decode(ids))
    assert "".join(pieces) == whole.strip()
    assert all(pieces)


@pytest.mark.parametrize("written", [tiny.tokenizer(), tiny.spaced_tokenizer()])
def test_pieces_are_whole_characters_and_lose_no_space_behind_a_line(written: Any) -> None:
    text, codec = "one two\n three\n\n  ☃漢字 four, five", TokenCodec(written)
    pieces: list[str] = []
    decoder, streamer = IncrementalDecoder(codec), TextStreamer(pieces.append)
    for token in written(text, add_special_tokens=False)["input_ids"]:
        streamer.put(decoder.add(token))
    streamer.end(text)
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(pieces) > 10


@pytest.mark.parametrize("chat", [None, tiny.CHAT])
def test_an_answer_is_decoded_once_however_long_it_is(
    chat: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LanguageModel(tiny.network("llama"), tiny.tokenizer(chat), tiny.WINDOW)
    decode, decoded = model.tokens.decode, list[int]()

    def counting(ids: Sequence[int]) -> str:
        decoded.append(len(ids))
        return decode(ids)

    monkeypatch.setattr(model.tokens, "decode", counting)
    text, _ = model.generate(model.prompt("pump seven is down"), 40)
    assert text
    assert len(decoded) <= 2, "for the whole text, and to see whether it is a thought"


@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.lists(st.integers(0, 5), max_size=9))
def test_an_answer_that_repeats_itself_is_a_loop(part: list[int], before: list[int]) -> None:
    copies = max(LOOP_COPIES, -(-LOOP_TOKENS // len(part)))
    assert is_loop(before + part * copies)


@given(st.lists(st.integers(0, 99), unique=True, max_size=60), st.integers(1, 2))
def test_words_said_twice_are_no_loop(words: list[int], times: int) -> None:
    assert not is_loop(words * times)
