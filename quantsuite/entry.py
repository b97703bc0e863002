"""What pytest loads in every project of an environment: nothing, until an argument names ``quantsuite``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Iterator[None]:
    """Loads the plugin where tests of the package are named with ``--pyargs``.

    Its options are declared last, so that they can give way to those of other plugins and of conftest files.  Until
    then pytest takes their values for places of tests, of which it would import ``conftest.py``: of a checkpoint's
    folder too.
    """
    known = early_config.known_args_namespace
    by_name = known.pyargs and any(name.split(".")[0] == "quantsuite" for name in known.file_or_dir)
    in_clone = (early_config.rootpath / "quantsuite" / "entry.py").is_file()
    if by_name or in_clone:
        from quantsuite.options import places_of_tests

        known.file_or_dir[:] = places_of_tests(args, known.file_or_dir)
    yield
    if by_name:
        early_config.pluginmanager.import_plugin("quantsuite.plugin")
