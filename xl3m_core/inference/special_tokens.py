"""Control tokens of a tokenizer, and a copy of it in which no text can contain one.

A text may contain "</s>" or "<tool_call>", by accident or as an injection. Tokenizers turn these
names into control tokens if they were added without being marked as special, or are pieces of the
vocabulary. In the copy, every control token has a random name.
"""

import json
import re
import secrets
from collections.abc import Collection, Iterable
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# "</think>", "[INST]", "<|im_start|>user": text in brackets, or brackets with bars.
_MARKUP = re.compile(r"(?s)<.+>|\[.+\]|\{.+\}|.*(?:<[|｜]|[|｜]>).*")


def without_special_tokens(backend: Any, special: Iterable[str] = ()) -> Any:
    """A copy of a tokenizer's fast part that gives the same ids for any text, except that names of
    control tokens in the text stay text. special: names that are control tokens in any case."""
    data = json.loads(backend.to_str())
    special_names = sorted(special_tokens(data, special))
    nonce = secrets.token_hex(8)
    names = {name: f"\uffff{nonce}{i}\uffff" for i, name in enumerate(special_names)}
    for added in data["added_tokens"]:
        added["content"] = names.get(added["content"], added["content"])
    _rename(data["model"], names)
    data["post_processor"] = None  # it would add tokens by their old names
    return Tokenizer.from_str(json.dumps(data))


def special_tokens(data: dict[str, Any], special: Iterable[str] = ()) -> set[str]:
    """The names of the control tokens: those marked as special, and names that look like one among
    the added tokens and among the pieces with score 0. Added blanks, words and signs are text.

    data: the tokenizer as JSON.
    """
    added = {t["content"] for t in data["added_tokens"] if _is_special(t["content"], t["special"])}
    vocab = data["model"]["vocab"]
    pieces = vocab if isinstance(vocab, list) else []
    weightless = {piece for piece, score in pieces if _is_special(piece, False) and score >= 0}
    names = added | set(special) | weightless
    return {name for name in names if name and not _BYTE.fullmatch(name)}


def _is_special(name: str, special: bool) -> bool:
    return special or _MARKUP.fullmatch(name) is not None


def _rename(model: dict[str, Any], names: dict[str, str]) -> None:
    """Rename pieces of a vocabulary, and drop the merges that produce or use them."""
    vocab = model["vocab"]
    if isinstance(vocab, list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
    else:
        model["vocab"] = {names.get(piece, piece): i for piece, i in vocab.items()}
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _involves(merge, names)]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]


def _involves(merge: str | list[str], names: Collection[str]) -> bool:
    one, other = merge.split(" ", 1) if isinstance(merge, str) else merge
    return not {one, other, one + other}.isdisjoint(names)


class TextSplitter:
    """For tokenizers without a fast part: splits a text so that no part has a control token's
    name."""

    def __init__(self, tokenizer: Any) -> None:
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        names = {t.content for t in added if _is_special(t.content, t.special)}
        names = {name for name in names | {*tokenizer.all_special_tokens} if len(name) > 1}
        self._name = re.compile("|".join(map(re.escape, sorted(names)))) if names else None

    def parts(self, text: str) -> list[str]:
        """The text, split after the first character of each name."""
        cuts, start = [0], 0
        while self._name and (match := self._name.search(text, start)):
            start = match.start() + 1
            cuts.append(start)
        return [text[a:b] for a, b in pairwise([*cuts, len(text)])]
