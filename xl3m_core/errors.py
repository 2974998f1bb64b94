"""The errors of the method, drawn as a tree. Each message says what to change.

XL3MError
├── MethodError       numbers that do not fit together (segment, question, k, window)
├── QuestionError     a question that is empty or longer than the method leaves room for
└── ModelError        a model that cannot be loaded or cannot be scored
"""


class XL3MError(Exception):
    """Base of everything this package raises on purpose."""


class MethodError(XL3MError, ValueError):
    """The numbers of the method do not fit the model's window."""


class QuestionError(XL3MError, ValueError):
    """The question is empty, or too long for the room the method leaves it."""


class ModelError(XL3MError, RuntimeError):
    """The model cannot be loaded, or cannot be scored."""
