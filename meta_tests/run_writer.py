"""A process that adds records to a run file one after the other, for tests of several at once.

``python -m meta_tests.run_writer FILE MODEL DTYPE COUNT [LARGEST]`` says each number as its record is written;
``LARGEST`` limits the size of any file in bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from meta_tests import factories
from quantsuite.records import Record, RecordError
from quantsuite.runfile import RunFile

QUESTIONS = 500


def written_record(model: str, dtype: str, index: int) -> Record:
    """The record that a writer writes as its ``index``-th: one scheme each."""
    items = factories.choices(QUESTIONS, 0.7, seed=index)
    record = factories.record(factories.DIRECT, f"int8-g{index + 1}", "simulated", model=model, items=items)
    return msgspec.structs.replace(record, environment=msgspec.structs.replace(record.environment, dtype=dtype))


def main(path: str, model: str, dtype: str, count: str, largest: str = "") -> int:
    if largest:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest), resource.RLIM_INFINITY))
    file = RunFile(Path(path))
    for index in range(int(count)):
        try:
            file.append([written_record(model, dtype, index)])
        except RecordError as error:
            print(error, file=sys.stderr)
            return 1
        print(index, flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
