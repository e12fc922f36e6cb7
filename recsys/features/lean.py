"""Feast imported without what this project has no use for, which is two thirds of the time that its import takes.

Feast lets typeguard parse and compile its classes anew, to check the types of arguments, and imports torch in case
somebody wants answers as tensors. Typed by hand, `feast apply` still checks what `definitions.py` says.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typeguard


@contextmanager
def lean_import() -> Iterator[None]:
    """While it lasts, classes go unchecked, and torch is absent if it was not imported before."""
    checked, absent = typeguard.typechecked, "torch" not in sys.modules
    typeguard.typechecked = _unchecked  # type: ignore[assignment]
    if absent:
        sys.modules["torch"] = None  # type: ignore[assignment]  # how Python is told that there is no such module
    try:
        yield
    finally:
        typeguard.typechecked = checked
        if absent:
            del sys.modules["torch"]


def _unchecked(target: Any) -> Any:
    return target
