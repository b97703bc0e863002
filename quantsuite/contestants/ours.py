"""quantsuite's own quantizer, and every kernel of the registry."""

from __future__ import annotations

from quantsuite.kernels.registry import registered

KERNELS = list(registered().values())
