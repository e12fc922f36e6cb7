"""Feast without what this project has no use for: two thirds of the time that its import takes, and its own progress.

Feast lets typeguard parse and compile its classes anew, to check the types of arguments, and imports torch in case
somebody wants answers as tensors. Typed by hand, `feast apply` still checks what `definitions.py` says.

And by variables of the environment it tells prometheus_client, and every process that is started later, to count in
files that several processes share: what its own server needs, and ours does not.
"""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, Final

import prometheus_client  # noqa: F401 - looks at the environment now, before Feast changes it
import typeguard

_SHARED_COUNTS: Final = ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR")


@contextmanager
def lean_import() -> Iterator[None]:
    """While it lasts, classes go unchecked, and torch is absent if it was not imported before."""
    checked, absent = typeguard.typechecked, "torch" not in sys.modules
    unset = [name for name in _SHARED_COUNTS if name not in os.environ]
    typeguard.typechecked = _unchecked  # type: ignore[assignment]
    if absent:
        sys.modules["torch"] = None  # type: ignore[assignment]  # how Python is told that there is no such module
    try:
        yield
    finally:
        typeguard.typechecked = checked
        if absent:
            del sys.modules["torch"]
        for name in unset:
            os.environ.pop(name, None)


def _unchecked(target: Any) -> Any:
    return target


@contextmanager
def quiet() -> Iterator[None]:
    """Feast prints its progress; the jobs show their own."""
    level = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(level)
