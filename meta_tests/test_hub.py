"""Hub ids: a cache is used, an unreachable hub is said soon, and of a repository only data is fetched."""

import http.server
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import datasets
import pytest

from quantsuite.adapters import hub
from quantsuite.adapters.loading import load_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SECONDS = 2 * hub.TIMEOUT + 4
"""The hub's own answer, one look of huggingface_hub at its registry of clients, and some slack."""

CALLS = {
    "model": "from quantsuite.adapters.loading import load_model; print(load_model({name!r}, dtype='fp32').sha256)",
    "context": "from quantsuite.adapters.loading import context_length; print(context_length({name!r}))",
    "dataset": "from meta_tests.recipes import wikitext_rows; print(wikitext_rows({name!r}))",
}
CLOCKED = """
import time
import meta_tests.recipes, quantsuite.adapters.loading, datasets
begin = time.monotonic()
try:
    {call}
except ValueError as error:
    print(type(error).__name__, error)
print(time.monotonic() - begin)
"""


def ask(what: str, endpoint: str, home: Path, name: str = "org/name") -> tuple[list[str], float]:
    """What a process that believes in the network prints, and the seconds that the call took."""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "*"}
    script = CLOCKED.format(call=CALLS[what].format(name=name))
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    *lines, seconds = done.stdout.splitlines()
    return lines, float(seconds)


@pytest.fixture(params=["closed", "silent"])
def unreachable(request: pytest.FixtureRequest) -> Iterator[str]:
    """A port that nobody listens on, or one that accepts and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if request.param == "silent":
            server.listen(16)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def closed() -> str:
    return "http://127.0.0.1:9"


def cache_repository(home: Path, folder: Path, kind: str = "models", name: str = "org/name") -> None:
    """The hub's cache layout, with a folder's files as the only snapshot."""
    repository = home / "hub" / f"{kind}--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    shutil.copytree(folder, repository / "snapshots" / COMMIT)


def cache_dataset(home: Path, config: str) -> None:
    """A dataset of two rows in the hub's cache."""
    folder = home / "data"
    folder.mkdir()
    files = f"configs:\n- config_name: {config}\n  data_files:\n  - split: test\n    path: test.parquet\n"
    (folder / "README.md").write_text(f"---\n{files}---\n")
    datasets.Dataset.from_dict({"text": ["a", "b"]}).to_parquet(folder / "test.parquet")
    cache_repository(home, folder, "datasets")


@pytest.mark.parametrize("what", CALLS)
def test_an_unreachable_hub_is_said_within_seconds(what: str, unreachable: str, tmp_path: Path) -> None:
    (message,), seconds = ask(what, unreachable, tmp_path)
    kind = "MissingDataError" if what == "dataset" else "CheckpointError"
    assert message.startswith(f"{kind} cannot load ")
    assert "'org/name': " in message and "is no folder, and the hub at" in message and "Give " in message
    assert seconds < SECONDS


def test_a_cached_model_is_used_where_the_hub_is_unreachable(
    closed: str, tmp_path: Path, pristine_folder: Path
) -> None:
    cache_repository(tmp_path, pristine_folder)
    (sha256,), seconds = ask("model", closed, tmp_path)
    assert sha256 == load_model(str(pristine_folder), dtype="fp32").sha256
    assert seconds < SECONDS + 5


def test_the_context_of_a_cached_model_is_read(closed: str, tmp_path: Path, pristine_folder: Path) -> None:
    cache_repository(tmp_path, pristine_folder)
    assert ask("context", closed, tmp_path)[0] == ["256"]


def test_a_cached_model_is_checked_as_a_folder_is(closed: str, tmp_path: Path, damageable: Path) -> None:
    lost = sorted(damageable.glob("model-*.safetensors"))[-1]
    lost.unlink()
    cache_repository(tmp_path, damageable)
    assert f"{lost.name} is missing" in ask("model", closed, tmp_path)[0][0]


def test_a_cached_dataset_is_used_where_the_hub_is_unreachable(closed: str, tmp_path: Path) -> None:
    cache_dataset(tmp_path, "wikitext-2-raw-v1")
    assert ask("dataset", closed, tmp_path)[0] == ["('a', 'b')"]


def test_why_a_cached_dataset_cannot_be_used_is_said_beside_the_hubs_failure(closed: str, tmp_path: Path) -> None:
    cache_dataset(tmp_path, "another")
    (message,), _ = ask("dataset", closed, tmp_path)
    assert "its copy in the local cache cannot be used (ValueError: " in message
    assert "'wikitext-2-raw-v1' not found. Available: ['another']" in message
    assert f"and the hub at {closed} cannot be reached" in message


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as a download needs, for one repository."""

    def __init__(self, *arguments: object, folder: Path, requested: list[str]) -> None:
        self.folder, self.requested = folder, requested
        super().__init__(*arguments)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _reply(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        names = sorted(str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if p.is_file())
        head, _, file = path.partition(f"/resolve/{COMMIT}/")
        if head == "/org/name" and file in names:
            self.requested.append(file)
            self._reply((self.folder / file).read_bytes(), ETag=f'"{file}"', X_Repo_Commit=COMMIT)
        elif path == f"/api/models/org/name/tree/{COMMIT}":
            sizes = {name: (self.folder / name).stat().st_size for name in names}
            entries = [{"type": "file", "path": name, "size": size, "oid": name} for name, size in sizes.items()]
            self._reply(json.dumps(entries).encode(), Content_Type="application/json")
        elif path.startswith("/api/models/org/name"):
            info = {"id": "org/name", "sha": COMMIT, "siblings": [{"rfilename": name} for name in names]}
            self._reply(json.dumps(info).encode(), Content_Type="application/json")
        else:
            self._reply(b"{}", 404)

    do_HEAD = do_GET


@pytest.fixture
def served(damageable: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A hub's endpoint, the folder of its repository, and the files that were asked for."""
    requested: list[str] = []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, folder=damageable, requested=requested))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", damageable, requested
    server.shutdown()


def test_of_a_repository_only_data_and_its_own_shards_are_fetched(
    served: tuple[str, Path, list[str]], tmp_path: Path, pristine_folder: Path
) -> None:
    endpoint, folder, requested = served
    own = {path.name for path in folder.iterdir()}
    for other in ("code.py", "pytorch_model.bin", "consolidated.safetensors", "vocab.pkl", "onnx/config.json"):
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / other).write_text("no data")
    assert ask("model", endpoint, tmp_path)[0] == [load_model(str(pristine_folder), dtype="fp32").sha256]
    assert set(requested) == own


def test_for_a_context_only_the_configuration_is_fetched(served: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    endpoint, _, requested = served
    assert ask("context", endpoint, tmp_path)[0] == ["256"]
    assert set(requested) == {"config.json"}


def test_a_repository_of_pickled_weights_is_refused_before_anything_is_fetched(
    served: tuple[str, Path, list[str]], tmp_path: Path
) -> None:
    endpoint, folder, requested = served
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").touch()
    assert "org/name has pickled weights only (pytorch_model.bin)" in ask("model", endpoint, tmp_path)[0][0]
    assert requested == []


def test_a_repository_that_the_hub_does_not_have_is_said(served: tuple[str, Path, list[str]], tmp_path: Path) -> None:
    assert "the hub has no public org/other (404)" in ask("model", served[0], tmp_path, "org/other")[0][0]


@pytest.mark.parametrize("location", ["/a", "./a", "../a", "a/b/c", "~/a", "a/", "data/wikitext/x"])
def test_a_path_is_told_from_a_hub_id(location: str) -> None:
    assert hub.looks_like_path(location)


@pytest.mark.parametrize("location", ["gpt2", "org/name", "Qwen/Qwen3-1.7B"])
def test_a_hub_id_is_told_from_a_path(location: str) -> None:
    assert not hub.looks_like_path(location)
