"""Limits: what is said when there may be no more of something: the reason its sender is given.

Knows what the limits are called; not who counts.
"""

from stream_app.settings.variables import variable


class LimitError(RuntimeError):
    """There are as many as there may be; the message is the reason the sender is given."""


def too_many_streams(stream: str, most: int) -> str:
    """The stream is not among those known, and they are as many as there may be."""
    return (
        f"stream {stream!r} would be one more than {most}; {variable('max_streams')} sets how many"
    )


def too_many_questions(most: int) -> str:
    """The stream has as many standing questions as it may have."""
    return (
        f"the stream has {most} standing questions, and may have no more: end them first, or set "
        f"this one in their place; {variable('max_standing_questions')} sets how many"
    )


def too_many_queries(most: int) -> str:
    """As many queries wait as may."""
    return f"too many queries wait, {most} of them: ask again later"
