"""The errors of the method, drawn as a tree. Each message says what to change.

XL3MError
├── MethodError       sizes that do not fit the window (segment, question, answer, k)
├── QuestionError     a question that is empty or longer than the method leaves room for
└── ModelError        a model that cannot be loaded or run
"""


class XL3MError(Exception):
    """Base of all errors of this package."""


class MethodError(XL3MError, ValueError):
    """The sizes of the method do not fit the model's window."""


class QuestionError(XL3MError, ValueError):
    """The question is empty, or longer than the method allows."""


class ModelError(XL3MError, RuntimeError):
    """The model cannot be loaded, or gives no usable logits."""


def error_summary(error: Exception) -> str:
    """The first line of an error's message, or its class if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
