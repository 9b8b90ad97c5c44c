"""Whose fault it is that a task did not end well. The texts are sentences for the person who submitted the job."""

from protocol.limits import TEXT_CHARS_MAX


class TaskFault(Exception):
    """The task's own: another machine would fare no better. It is signed, and counts against the job's attempts."""


class MachineFault(Exception):
    """This machine's: the task is given back, and another may try."""


class Unread(Exception):
    """Of peers who do not deliver what the task reads: it is given back, and waits until they do."""


def with_tail(what: str, tail: str) -> str:
    """What went wrong with the last that the program printed, as much of it as a receipt holds."""
    tail = tail.strip()
    room = TEXT_CHARS_MAX - len(what) - 2
    return f"{what}: {tail[-room:]}" if tail and room > 0 else what
