"""Control tokens: what a tokenizer has beside text, and a copy of it that reads none out of a text.

A text may hold "</s>" or "<tool_call>": someone's log, or someone's trick. Tokenizers read such
names as their control tokens where these are added but not called special, or lie among a
vocabulary's pieces. In the copy each has a name that no text can know. Knows tokenizers; no model.
"""

import json
import re
import secrets
from collections.abc import Collection, Iterable
from itertools import pairwise
from typing import Any

from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
# "</think>", "[INST]", "<|im_start|>user": brackets around something, or bars in them.
_MARKUP = re.compile(r"(?s)<.+>|\[.+\]|\{.+\}|.*(?:<[|｜]|[|｜]>).*")


def without_special_tokens(backend: Any, special: Iterable[str] = ()) -> Any:
    """A copy of the tokenizer's part in Rust that gives the same ids for any text, except that
    names of control tokens in it are text. special: names that are control tokens in any case."""
    data = json.loads(backend.to_str())
    found = special_tokens(data, special)
    nonce = secrets.token_hex(8)
    names = {name: f"\uffff{nonce}{i}\uffff" for i, name in enumerate(sorted(found))}
    for added in data["added_tokens"]:
        added["content"] = names.get(added["content"], added["content"])
    _rename(data["model"], names)
    data["post_processor"] = None  # it would add tokens, by their names; nobody asks it to
    return Tokenizer.from_str(json.dumps(data))


def special_tokens(data: dict[str, Any], special: Iterable[str] = ()) -> set[str]:
    """The names of the control tokens: those called special; and what looks like one among
    the added tokens and among the pieces that weigh nothing. Runs of blanks, words of a language
    and signs are text, whoever added them."""
    added = {t["content"] for t in data["added_tokens"] if _is_special(t["content"], t["special"])}
    vocab = data["model"]["vocab"]
    pieces = vocab if isinstance(vocab, list) else []
    weightless = {piece for piece, score in pieces if _is_special(piece, False) and score >= 0}
    found = added | set(special) | weightless
    return {name for name in found if name and not _BYTE.fullmatch(name)}


def _is_special(name: str, special: bool) -> bool:
    return special or _MARKUP.fullmatch(name) is not None


def _rename(model: dict[str, Any], names: dict[str, str]) -> None:
    """Give the pieces of a vocabulary other names; nothing is merged to them any more."""
    vocab = model["vocab"]
    if isinstance(vocab, list):
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
    else:
        model["vocab"] = {names.get(piece, piece): i for piece, i in vocab.items()}
    if "merges" in model:
        model["merges"] = [each for each in model["merges"] if not _makes(each, names)]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]


def _makes(merge: str | list[str], names: Collection[str]) -> bool:
    one, other = merge.split(" ", 1) if isinstance(merge, str) else merge
    return not {one, other, one + other}.isdisjoint(names)


class TextSplitter:
    """For tokenizers that are not in Rust: texts in parts, none with a control token's name."""

    def __init__(self, tokenizer: Any) -> None:
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        names = {t.content for t in added if _is_special(t.content, t.special)}
        names = {name for name in names | {*tokenizer.all_special_tokens} if len(name) > 1}
        self._name = re.compile("|".join(map(re.escape, sorted(names)))) if names else None

    def parts(self, text: str) -> list[str]:
        """The text, cut behind the first character of every such name."""
        cuts, at = [0], 0
        while self._name and (found := self._name.search(text, at)):
            at = found.start() + 1
            cuts.append(at)
        return [text[a:b] for a, b in pairwise([*cuts, len(text)])]
