"""A method of one's own: the first and the last decoder layer in eight bits, all between as the scheme says.

pytest --pyargs quantsuite.accuracy --method ./mine.py --scheme int4-g64,int4-g64@mine
"""

from quantsuite.coverage import matrices
from quantsuite.plan import LayerPlan, Plan
from quantsuite.scheme import Scheme

name, needs = "mine", "weights"
EIGHT_BITS = LayerPlan(scheme=Scheme.parse("int8-row"))


def plan(model, scheme, *, include_head, progress):
    last = model.config.num_hidden_layers - 1
    ends = ("model.layers.0.", f"model.layers.{last}.")
    layers = {path: EIGHT_BITS for path, weight in matrices(model, include_head) if path.startswith(ends)}
    return Plan(scheme=scheme, layers=layers)
