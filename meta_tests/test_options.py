"""Options of the command line as they are read."""

import argparse

import pytest

from quantsuite.options import RunOptions, add_options


@pytest.mark.parametrize(
    ("given", "task"),
    [
        (["--task", "layers", "--task", "mmlu,piqa"], ["layers", "mmlu", "piqa"]),
        (["--task", "layers"], ["layers"]),
        ([], RunOptions().task),
    ],
)
def test_lists_of_a_repeated_option_are_joined(given: list[str], task: list[str]) -> None:
    parser = argparse.ArgumentParser()
    add_options(parser.add_argument)
    assert RunOptions.read(parser.parse_args(given)).task == task
