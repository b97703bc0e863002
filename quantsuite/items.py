"""Items of the shipped metrics, which :mod:`quantsuite.metrics` holds."""

from __future__ import annotations

from quantsuite.metrics import UNPARSED as UNPARSED
from quantsuite.metrics import Choices as Choices
from quantsuite.metrics import Divergences as Divergences
from quantsuite.metrics import Matches as Matches
from quantsuite.metrics import Perplexities as Perplexities
from quantsuite.metrics import Truths as Truths
from quantsuite.metrics import check_finite as check_finite
from quantsuite.metrics import disagreement as disagreement

Items = Perplexities | Choices | Divergences | Truths | Matches
