"""Question wordings, around the name of a value or around a whole question.

Some wordings are held out of the training, for measuring.
"""

from __future__ import annotations

from training.corpus.entities import Source

PLAIN = "What is {}?"
NAMING = (
    PLAIN,
    "{}?",
    "What was {}?",
    "Which is {}?",
    "Tell me {}.",
    "Give me {}.",
    "I need {}.",
    "Can you tell me {}?",
    "Find {} for me.",
    "I want to know {}.",
    "In this log, what is {}?",
    "{}, please.",
    "Show me {}.",
    "Let me know {}.",
    "I am looking for {}.",
    "What do the lines say about {}?",
    "Is there anything on {}?",
    "Where do I find {}?",
    "Read me {}.",
    "We have to know {}.",
    "Does anybody have {}?",
    "Tell us {}, will you?",
    "What have you got for {}?",
)
ASKING = (
    "{}",
    "{}",
    "Tell me: {}",
    "Quick question: {}",
    "Please, {}",
    "In this log: {}",
    "Now, {}",
)
NAMING_HELD_OUT = ("Do you know {}?", "Please look up {}.", "What would be {}?", "Could I have {}?")
ASKING_HELD_OUT = ("Look here: {}", "One thing: {}", "{} Thanks.")


def wrap(source: Source, phrase: str, wrappings: int = 99) -> str:
    """The phrase as a question; one in four is among meaningless words."""
    whole = phrase.endswith("?")
    if source.held_out:
        return source.rng.choice(ASKING_HELD_OUT if whole else NAMING_HELD_OUT).format(phrase)
    if wrappings > 1 and source.rng.random() < 0.25:
        before, after = (_babble(source) for _ in range(2))
        return f"{before}{phrase} {after}".strip() + ("" if whole and not after else "?")
    return source.rng.choice((ASKING if whole else NAMING)[:wrappings]).format(phrase)


def _babble(source: Source) -> str:
    """Up to three meaningless words."""
    return "".join(source.draw("word") + " " for _ in range(source.rng.randint(0, 3)))
