"""`two-tower update` and what `embed.py` says of unknown words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import word


def test_new_passages_are_embedded_with_their_words(collection: Path, tmp_path: Path, call: Callable[..., Any]) -> None:
    new = tmp_path / "new.jsonl"
    texts = [f"{word(0)} zebrafish", f"{word(0)} {word(1)} quixotic"]
    lines = [json.dumps({"_id": str(number), "text": text}) for number, text in enumerate(texts)]
    new.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = ["data=passages", f"data.path={new}"]
    options = ["trainer.max_epochs=1", "tower.dim=16", "data.batch_size=32", "run_dir=run"]
    assert call("train.py", "data=beir", f"data.path={collection}", *options).status == 0
    before = call("embed.py", "run=run", *data, "output=before")
    assert before.status == 0
    assert "2 of 5 words of the passages (40.00%) were unknown" in " ".join((before.out + before.err).split())
    assert "each has a vector now, drawn at random as all were" in " ".join((before.out + before.err).split())
    updated = call("two-tower", "update", "run", "more", *data)
    assert updated.status == 0, updated.err
    assert "2 of 5 words of the passages (40.00%) were unknown" in " ".join((updated.out + updated.err).split())
    assert "vocabulary" not in updated.out + updated.err  # it is embedded, too
    found = call("two-tower", "search", "more", "zebrafish", "-k", "1")
    assert found.status == 0, found.err
    assert f"{word(0)} zebrafish" in found.out
    again = call("two-tower", "update", "run", "more", *data)
    assert again.status == 0
    assert "nothing to do" in again.out + again.err
    for arguments, said in (
        (["more", "data=beir", f"data.path={collection}"], "more exists already"),
        (["other"], "Say what the collection is now"),
    ):
        mistake = call("two-tower", "update", "run", *arguments)
        assert mistake.status == 2
        assert said in mistake.err
