"""Round-to-nearest: every layer alike, each scale from the largest magnitude."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from quantsuite.methods.protocol import Needs
from quantsuite.plan import Plan
from quantsuite.scheme import Scheme

name = "rtn"
needs: Needs = "weights"


def plan(model: nn.Module, scheme: Scheme, *, include_head: bool, progress: Callable[[str], None]) -> Plan:
    """See :class:`~quantsuite.methods.protocol.Method`."""
    return Plan.of(scheme)
