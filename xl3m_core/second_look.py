"""The second look: which records of a key context a small reader should read.

A segment holds some ten log lines, and a small model answers better from one of them. Words alone
choose a few, at no cost; the model then scores these like segments (see `relevance`).
"""

from collections.abc import Sequence

from xl3m_core.lexical import QuestionWords
from xl3m_core.records import record_start

SCORED_RECORDS = 12
"""Records of a key context that the model scores: with their questions about a thousand tokens,
a second on two cores with 135M parameters."""


def cut_records(text: str, rule: str) -> list[str]:
    """The records of a text without blank ends, each once; rule: see `records.record_start`."""
    begins, found = record_start(rule), list[str]()
    for line in text.splitlines(keepends=True):
        if found and not begins(line):
            found[-1] += line
        else:
            found.append(line)
    return [*dict.fromkeys(record for each in found if (record := each.strip()))]


def promising(records: Sequence[str], question: QuestionWords) -> list[str]:
    """The records that share most with the question, at most SCORED_RECORDS, the best first; of
    equal ones the earlier first."""
    return sorted(records, key=question.match, reverse=True)[:SCORED_RECORDS]
