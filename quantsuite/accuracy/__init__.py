"""Requirements on models as pytest tests: ``pytest --pyargs quantsuite.accuracy``."""
