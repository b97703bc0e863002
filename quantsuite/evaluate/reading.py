"""Rows of datasets: from a local file or folder, the hub, or what the hub left in the local cache."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quantsuite.adapters.checkpoint import one_line
from quantsuite.adapters.hub import TIMEOUT, cached_folder, describe_failure, looks_like_path, offline
from quantsuite.quiet import quiet

WAY_OUT = "Give the hub id, where the hub can be reached, or the folder of a local copy of the dataset"
GLOB = frozenset("*?[]")
FORMATS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
"""Endings of files, and which reader of ``datasets`` they take."""


class DataError(ValueError):
    """A dataset that cannot be read or has not the rows and columns that a recipe needs."""


class MissingDataError(DataError):
    """A dataset that is not to be had here; the message says how to get it."""


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    import datasets

    disabled = datasets.utils.are_progress_bars_disabled()
    with quiet(logging.ERROR):  # What it logs as an error it raises too.
        datasets.utils.disable_progress_bars()
        try:
            yield
        finally:
            if not disabled:
                datasets.utils.enable_progress_bars()


@contextmanager
def _datasets_offline() -> Iterator[None]:
    """No request of ``datasets``, which keeps a copy of the hub's setting of its own."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        with offline():
            yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _select(dataset: Any, location: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    if missing := [column for column in columns if column not in dataset.column_names]:
        raise DataError(
            f"{location!r} has columns {', '.join(dataset.column_names)} and lacks {', '.join(missing)}; "
            f"a recipe for it needs {', '.join(columns)}"
        )
    return dataset.select_columns(list(columns)).to_list()


def _rows(location: str, config: str, split: str, columns: Sequence[str], **options: str) -> list[dict[str, Any]]:
    import datasets

    return _select(datasets.load_dataset(location, config or None, split=split, **options), location, columns)


def _local_rows(folder: Path, *what: Any) -> list[dict[str, Any]]:
    """Rows of a folder; one whose path ``datasets`` would take for a pattern is read through links."""
    with tempfile.TemporaryDirectory(prefix="quantsuite-") as temporary:
        place = str(folder)
        if GLOB & set(str(folder.resolve())):
            # Links to files, as a link to the folder would be resolved to the path that it avoids.
            place = shutil.copytree(folder.resolve(), f"{temporary}/data", copy_function=os.symlink)
        # In a cache that is shared, a folder's name and README stand for its rows: they may be those of another
        # folder, or of files that have changed since.
        return _rows(place, *what, cache_dir=f"{temporary}/cache")


def _hub_rows(hub_id: str, *what: Any) -> list[dict[str, Any]]:
    """Rows of a hub dataset; of the hub's cache, then of ``datasets``' own, where the hub does not answer."""
    from huggingface_hub import HfApi

    try:
        HfApi().dataset_info(hub_id, timeout=TIMEOUT)
    except Exception as error:
        try:
            return _cached_rows(hub_id, *what)
        except DataError:
            raise
        except ConnectionError:  # What datasets raises of a dataset that it has no copy of.
            raise ConnectionError(f"it is no folder, and {describe_failure(hub_id, error)}") from error
        except Exception as cached:
            raise ConnectionError(
                f"it is no folder, its copy in the local cache cannot be used ({one_line(_cause(cached))}), and "
                f"{describe_failure(hub_id, error)}"
            ) from cached
    return _rows(hub_id, *what)


def _cached_rows(hub_id: str, *what: Any) -> list[dict[str, Any]]:
    with _datasets_offline():
        folder = cached_folder(hub_id, "README.md", repo_type="dataset")
        return _local_rows(folder, *what) if folder else _rows(hub_id, *what)


def _cause(error: BaseException) -> BaseException:
    """The first of a chain of errors; ``datasets`` says of a column that it cannot cast only that it failed."""
    while error.__cause__ is not None and type(error).__module__.startswith("datasets."):
        error = error.__cause__
    return error


def _read(what: str, way_out: str, read: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The rows that a call gives.

    Raises:
        MissingDataError: for whatever it raises: datasets, pyarrow and the hub raise of many kinds.
        DataError: as the call does, or if there are no rows.
    """
    try:
        with _quiet_datasets():
            rows = read()
    except DataError:
        raise
    except Exception as error:
        if isinstance(_cause(error), StopIteration):
            raise DataError(f"{what} is empty") from error
        raise MissingDataError(f"cannot load {what}: {one_line(_cause(error))}.  {way_out}") from error
    if not rows:
        raise DataError(f"{what} is empty")
    return rows


def read_rows(location: str, config: str, split: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a split, with the wanted columns.

    Args:
        location: a hub id, or the folder of a local copy.
        config: of the dataset; empty where there is but one.
        split: of the configuration.
        columns: that the recipe needs.

    Raises:
        MissingDataError: if it cannot be loaded.
        DataError: if a column is missing or there are no rows.
    """
    folder = Path(location).expanduser()
    if not folder.is_dir() and (folder.exists() or looks_like_path(location)):
        raise MissingDataError(f"{location} is not a folder, and no hub id has this form.  {WAY_OUT}")
    read = _local_rows if folder.is_dir() else _hub_rows
    named = f"{config!r}, " if config else ""
    return _read(
        f"{named}split {split!r}, from {location!r}",
        WAY_OUT,
        lambda: read(folder if folder.is_dir() else location, config, split, columns),
    )


def read_file(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a local file, with the wanted columns.

    Raises:
        MissingDataError: if it is not there or cannot be read, or has another ending than ``FORMATS``.
        DataError: if a column is missing or there are no rows.
    """
    way_out = f"Give a file that ends in {', '.join(FORMATS)}"
    if path.suffix not in FORMATS or not path.is_file():
        found = "has an ending that no reader knows" if path.is_file() else "is not a file"
        raise MissingDataError(f"{path} {found}.  {way_out}")
    return _read(f"{str(path)!r}", way_out, lambda: _file_rows(path, columns))


def _file_rows(path: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    import datasets

    with tempfile.TemporaryDirectory(prefix="quantsuite-") as temporary:
        link = Path(temporary, "rows")  # A path of its own, as that of the file could be taken for a pattern.
        link.symlink_to(path.resolve())
        loaded = datasets.load_dataset(
            FORMATS[path.suffix], data_files=str(link), split="train", cache_dir=f"{temporary}/cache"
        )
        return _select(loaded, str(path), columns)
