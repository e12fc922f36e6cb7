"""A circuit breaker (Nygard, "Release It!", 2007): a part that keeps failing is left alone for a moment.

Closed: calls go through. After `threshold` failures in a row it is open: calls are refused at once, instead of each
waiting for a deadline. After `reset_s` it is half-open: one call goes through, the probe; its success closes the
breaker, its failure opens it for another `reset_s`.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from recsys.errors import Unavailable

THRESHOLD: Final = 3
RESET_S: Final = 1.0

Status = Literal["closed", "open", "half_open"]


class Breaker:
    """Of one part. Safe for use from several threads.

    Args:
        part: its name, for messages.
        refuses: the error of a call that is not let through.
        threshold: failures in a row that open it.
        reset_s: how long it stays open.
        clock: seconds, never going back.

    Attributes:
        answered: whether the part ever did.
    """

    def __init__(
        self, part: str, refuses: type[Unavailable], *, threshold: int = THRESHOLD, reset_s: float = RESET_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._part, self._refuses = part, refuses
        self._threshold, self._reset_s, self._clock = threshold, reset_s, clock
        self._lock = threading.Lock()
        self._failures = 0
        self._probe_at = 0.0  # when the next probe may go
        self._probing = False
        self.answered = False

    @property
    def status(self) -> Status:
        """Whether the next call goes through: all do, none does, or one does."""
        with self._lock:
            if self._failures < self._threshold:
                return "closed"
            return "open" if self._clock() < self._probe_at else "half_open"

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Around one call of the part. `Unavailable` is its failure; any other error is an answer.

        Raises:
            Unavailable: the call is refused, or it failed.
        """
        probe = self.admit()
        try:
            yield
        except Unavailable:
            self.failed(probe)
            raise
        except Exception:
            self.succeeded()
            raise
        except BaseException:  # whoever asked has gone: it says nothing of the part
            self._gave_up(probe)
            raise
        self.succeeded()

    def admit(self) -> bool:
        """Let a call through, of which `succeeded` or `failed` must tell; whether it is the probe.

        Raises:
            Unavailable: the call is refused.
        """
        with self._lock:
            if self._failures < self._threshold:
                return False
            if self._probing or self._clock() < self._probe_at:
                raise self._refuses(f"{self._part} is left alone for a moment (got {self._failures} failures in a row)")
            self._probing = True
            return True

    def failed(self, probe: bool) -> None:
        """A call that was let through got no answer."""
        with self._lock:
            self._failures += 1
            self._probe_at = self._clock() + self._reset_s
            self._probing &= not probe

    def succeeded(self) -> None:
        """A call that was let through was answered."""
        with self._lock:
            self._failures, self._probing, self.answered = 0, False, True

    def _gave_up(self, probe: bool) -> None:
        with self._lock:
            self._probing &= not probe
