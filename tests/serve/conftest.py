"""A service over two small runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_train import fit

from embed import embed

FLAT = {"_target_": "two_tower.index.faiss.FlatIndex"}


@pytest.fixture(scope="session")
def run_folders(collection: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two embedded runs over one corpus, of which three passages hold markup."""
    folder = tmp_path_factory.mktemp("serve")
    hostile = shutil.copytree(collection, folder / "collection")
    with (hostile / "corpus.jsonl").open("a", encoding="utf-8") as corpus:
        corpus.write(
            '{"_id": "<b>id</b>", "title": "<i>zazuzu</i>", "text": "zazuzu <script>bad()</script> 𝒳 zazuzu"}\n'
        )
        corpus.write('{"_id": "m2", "title": "", "text": "zazuzu <img src=x onerror=bad()> &lt;b&gt; \\u0000"}\n')
        corpus.write('{"_id": "m3", "title": "</title>", "text": "javascript:bad() zazuzu </li></ol><form>"}\n')
    paths = []
    for name, overrides in (("first", ()), ("second", ("tower=gru", "tower.dim=12"))):
        fit(hostile, folder / name, *overrides)
        embed({"run": str(folder / name), "output": None, "data": None, "index": FLAT, "shard_rows": 100})
        paths.append(folder / name)
    return paths
