"""A service over two small runs."""

import shutil
from pathlib import Path

import pytest
from test_train import fit
from training import embedded

from two_tower.search import Searcher
from two_tower.serve import Runs

HOSTILE = r"""
{"_id": "<b>id</b>", "title": "<i>zazuzu</i>", "text": "zazuzu <script>bad()</script> 𝒳 zazuzu"}
{"_id": "m2", "title": "", "text": "zazuzu <img src=x onerror=bad()> &lt;b&gt; \u0000"}
{"_id": "m3", "title": "</title>", "text": "javascript:bad() zazuzu </li></ol><form>"}
"""


@pytest.fixture(scope="session")
def run_folders(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two embedded runs over one corpus, of which three passages hold markup."""
    folder = tmp_path_factory.mktemp("serve")
    hostile = shutil.copytree(collection, folder / "collection")
    with (hostile / "corpus.jsonl").open("a", encoding="utf-8") as corpus:
        corpus.write(HOSTILE.lstrip())
    paths = []
    for name, overrides in (("first", ()), ("second", ("tower=gru", "tower.dim=12"))):
        fit(hostile, folder / name, *overrides)
        paths.append(embedded(folder / name))
    return paths


@pytest.fixture(scope="session")
def runs(run_folders: list[Path]) -> Runs:
    loaded = Runs(map(Searcher.load, run_folders))
    loaded.warm()
    return loaded
