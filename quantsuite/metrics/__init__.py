"""Metrics: what is measured of items, one file each; :func:`metric` finds them by name."""

from quantsuite.metrics.accuracy import UNPARSED, Choices
from quantsuite.metrics.checks import check_finite
from quantsuite.metrics.definition import Direction, InWords, Items, Margin, Metric, change, disagreement
from quantsuite.metrics.divergence import Divergences
from quantsuite.metrics.estimators import ExponentialOfMean, LogRatioOfMeans, Mean, Proportion
from quantsuite.metrics.layers import Layers
from quantsuite.metrics.match_rate import Matches
from quantsuite.metrics.perplexity import Perplexities
from quantsuite.metrics.registry import MetricError, metric, named_metric
from quantsuite.metrics.scale import Scale, percentage
from quantsuite.metrics.truth_mass import Truths

__all__ = [
    "UNPARSED",
    "Choices",
    "Direction",
    "Divergences",
    "ExponentialOfMean",
    "InWords",
    "Items",
    "Layers",
    "LogRatioOfMeans",
    "Margin",
    "Matches",
    "Mean",
    "Metric",
    "MetricError",
    "Perplexities",
    "Proportion",
    "Scale",
    "Truths",
    "change",
    "check_finite",
    "disagreement",
    "metric",
    "named_metric",
    "percentage",
]
