"""Methods: what turns a model and a scheme into a plan.  They know no layer class, and layers know no method."""

from quantsuite.methods.protocol import Method, MethodError
from quantsuite.methods.registry import find, known, load, make_plan

__all__ = ["Method", "MethodError", "find", "known", "load", "make_plan"]
