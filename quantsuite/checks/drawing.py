"""Inputs that Hypothesis draws for a check: as many as the profile says, a failure shrunk to its smallest case."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis.errors import HypothesisException
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from hypothesis.strategies import SearchStrategy

from quantsuite.checks.outcome import CheckFailure, NotApplicable, NotSupported

Case = TypeVar("Case")

SHRINKING = 5.0
"""Seconds after the first failure in which a smaller one is looked for."""


class _Enough(BaseException):
    """Ends a search for smaller failures; of no class that Hypothesis takes for a failure."""


def examples() -> int:
    """How many examples the profile draws; ``--hypothesis-profile=thorough`` draws many."""
    return settings.default.max_examples


def load_examples(count: int) -> None:
    """Let :func:`examples` be a number: in a process that was started without pytest's options."""
    settings.register_profile("requested", settings.default, max_examples=count)
    settings.load_profile("requested")


def _options(count: int, **others: Any) -> settings:
    return settings(
        max_examples=max(1, count),
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
        **others,
    )


class _Attempts:
    """What happened in the examples of a search: the last failure, which is the smallest once it is over."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.left_out: Exception | None = None
        self.held, self._since = False, 0.0

    def try_once(self, body: Callable[[], object]) -> None:
        """Run one example.  What does not apply to it, or is not supported, is no failure of it."""
        if self.failure is not None and time.monotonic() > self._since + SHRINKING:
            raise _Enough
        try:
            body()
        except HypothesisException:
            raise
        except (NotApplicable, NotSupported) as reason:
            self.left_out = self.left_out or reason
        except Exception as error:
            self._since = self._since if self.failure is not None else time.monotonic()
            self.failure = error
            self._traceback = error.__traceback__
            raise
        else:
            self.held = True

    def run(self, search: Callable[[], object]) -> None:
        """Run a search, and let what it found through without a word of Hypothesis."""
        try:
            search()
        except _Enough:
            pass
        except Exception:
            if self.failure is None:
                raise
        if self.failure is not None:
            self.failure.__dict__.pop("__notes__", None)
            raise self.failure.with_traceback(self._traceback) from None
        if not self.held and self.left_out is not None:
            raise self.left_out


def search(
    strategy: SearchStrategy[Case], body: Callable[[Case], float], *, seed: int, count: int | None = None
) -> float:
    """Try a check on drawn cases.

    Args:
        strategy: of the cases; what it draws shrinks towards its simplest.
        body: returns the largest error as a fraction of its bound; its failures name the case.
        seed: decides what is drawn.
        count: of the cases, :func:`examples` of them unless given.

    Returns:
        The largest of what ``body`` returned.

    Raises:
        CheckFailure: of the smallest case that was found within :data:`SHRINKING` seconds.
        NotApplicable, NotSupported: if ``body`` raised them for every case.
    """
    __tracebackhide__ = True
    attempts, tightest = _Attempts(), [0.0]

    @hypothesis.seed(seed)
    @_options(examples() if count is None else count)
    @given(strategy)
    def run(case: Case) -> None:
        attempts.try_once(lambda: tightest.append(body(case)))

    attempts.run(run)
    return max(tightest)


class History(RuleBasedStateMachine):
    """Steps of a use of a kernel, which a failure lists.

    A rule runs its step by :meth:`step`, and each example sets up anew what the steps share.
    """

    attempts: _Attempts

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[str] = []

    def step(self, what: str, body: Callable[[], object]) -> None:
        """Run one step.

        Raises:
            CheckFailure: listing the steps up to this one.
        """
        self.steps.append(what)

        def run() -> None:
            try:
                body()
            except CheckFailure as error:
                raise CheckFailure(f"after {'; '.join(self.steps)}: {error}") from None

        self.attempts.try_once(run)


def search_histories(machine: type[History], *, seed: int, steps: int, count: int | None = None) -> None:
    """Try drawn histories of up to ``steps`` steps, the shortest that fails being reported.

    Args:
        machine: whose rules are the steps.
        seed: decides what is drawn.
        steps: of one history, at most.
        count: of the histories, :func:`examples` of them unless given.

    Raises:
        CheckFailure: of the shortest history that was found within :data:`SHRINKING` seconds.
    """
    __tracebackhide__ = True
    attempts = _Attempts()
    seeded = hypothesis.seed(seed)(type(machine.__name__, (machine,), {"attempts": attempts}))
    options = _options(examples() if count is None else count, stateful_step_count=steps)
    attempts.run(lambda: run_state_machine_as_test(seeded, settings=options))
