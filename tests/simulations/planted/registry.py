"""How a bug is planted: a context manager that puts something wrong in the place of something right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, NamedTuple

Plant = Callable[[], AbstractContextManager[None]]


class Bug(NamedTuple):
    name: str
    what: str
    plant: Plant


BUGS: dict[str, Bug] = {}
"""By name, in the order in which they were registered."""


def bug(plant: Plant) -> Plant:
    """Register a bug: its name is the function's, and what is wrong is in its docstring."""
    assert plant.__doc__, "a bug says what is wrong"
    assert plant.__name__ not in BUGS, plant.__name__
    BUGS[plant.__name__] = Bug(plant.__name__, plant.__doc__.strip(), plant)
    return plant


@contextmanager
def replaced(owner: Any, name: str, wrong: Any) -> Iterator[None]:
    """``owner.name`` is ``wrong`` for a while; it must be there."""
    right = vars(owner)[name]
    setattr(owner, name, wrong)
    try:
        yield
    finally:
        setattr(owner, name, right)


@contextmanager
def together(*mutations: AbstractContextManager[None]) -> Iterator[None]:
    with ExitStack() as stack:
        for mutation in mutations:
            stack.enter_context(mutation)
        yield


def does_nothing(*_: Any, **__: Any) -> None:
    """In place of a method that does something."""
