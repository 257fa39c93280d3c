"""Every mistake ends with status 2 and one sentence that names the place and what would be right."""

import gzip
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import composed, run_command, write_collection

from train import train
from two_tower.errors import UserError

Call = Callable[..., Any]  # see conftest.py in this folder


def is_one_sentence(err: str, expected: str) -> None:
    """One line that matches, no traceback, nothing else."""
    assert err.count("\n") == 1
    assert err.endswith((".\n", "?\n", "!\n"))
    assert re.search(expected, err), err


@pytest.fixture
def refused(call: Call, tmp_path: Path) -> Callable[..., None]:
    """Calls a command that must be refused before it writes anything, on either stream or into its folder."""
    (tmp_path / "empty").mkdir()

    def run(expected: str, program: str, *arguments: str | Path) -> None:
        ended = call(program, *arguments, cwd=tmp_path / "empty")
        is_one_sentence(ended.err, expected)
        assert ended.status == 2
        # What was read before the mistake was found may be told; nothing else.
        assert all("parsed" in line or "batches an epoch" in line for line in ended.out.splitlines()), ended.out
        assert [p.name for p in (tmp_path / "empty").rglob("*")] in ([], ["runs"])

    return run


UNREADABLE = {
    "tower=averge": r"^tower=averge does not exist; did you mean 'average'\?",
    "towr=gru": r"^towr does not exist; did you mean 'tower'\?",
    "tower.dmi=3": r"^tower.dmi does not exist; did you mean 'tower.dim'\? \(valid: tower.dim, ",
    "data=_loader": r"^data=_loader leaves data without a choice; valid: beir, ",
    "epochs": r"^'epochs' cannot be read: write key=value",
    "tower.dim=[": r"^tower.dim=\[ has the wrong type: it must be a whole number",
    "hydra/launcher=rq_cloud": r"pip install hydra-rq-launcher\.$",
    "hydra/job_logging=colorlog": r"pip install hydra-colorlog\.$",
    "tower=average,gru": r"add -m to run one experiment for each",
    "tower=null": r"^tower=null leaves tower without a choice; valid: average, gru",
    "+tower.dim=3": r"^tower.dim is set already: write tower.dim=VALUE without '\+'",
    "trainer.limit_train_batches=2": r"is added by \+trainer.limit_train_batches=VALUE\.$",
    "+tower=gru": r"^tower is set already: write tower=gru without '\+'",
    "+epochs=3": r"^epochs does not exist; valid: ",
    "~epochs": r"^epochs does not exist; valid: ",
    "hydra.run.dir=/dev/null/x": r"cannot be used: .*/dev/null/x",
    "--tower=gru": r"^--tower=gru is no option; did you mean tower=gru\?",
    "--epochs": r"^--epochs is no option; settings are written key=value",
}
WRONG = {
    "tower.dim=abc": "^tower.dim=abc has the wrong type: it must be a whole number",
    "validation.metrics=mrr": "^validation.metrics=mrr has the wrong type: it must be a list of texts .* or null",
    "trainer.precision=bf16-mixd": r"^trainer.precision=bf16-mixd does not exist; did you mean 'bf16-mixed'\?",
    "trainer.accelerator=abacus": "^trainer .* refuses its settings: .*abacus",
    "optimizer.lr=-1": "^optimizer.lr=-1 must be",
    "optimizer.lr=nan": "^optimizer.lr=nan has the wrong type: it must be a number",
    "loss.temperature=0": "^loss.temperature=0 must be above 0",
    "validation.metrics=[mrr@x]": "^Metric .mrr@x. needs a positive whole number",
    "validation.monitor=mmr": r"^There is no metric .mmr.; did you mean .mrr.\?",
    "embedding.weights=idff": r"^embedding.weights=idff does not exist; did you mean 'idf'\?",
    "tokenizer.min_frequency=100000": "no word occurs 100000 times",
    "tower=gru tower.dim=15 tower.bidirectional=true": "^tower.dim=15 must be even",
    "optimizer._target_=torch.optim.Adm": "^optimizer._target_=torch.optim.Adm cannot be imported",
    "data.path=nowhere": "nowhere is no folder",
    "data.path=???": "^data.path is not set",
    "data.batch_size=1000": "^data.batch_size=1000 is more than the 160 training examples of beir",
    "run_dir=/dev/null/run": "^run_dir=/dev/null/run cannot be made: Not a directory",
}


@pytest.mark.parametrize(("override", "expected"), UNREADABLE.items())
def test_what_cannot_be_composed(override: str, expected: str, refused: Callable[..., None]) -> None:
    refused(expected, "train.py", override)


@pytest.mark.parametrize("overrides", WRONG)
def test_what_cannot_work(overrides: str, collection: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=WRONG[overrides]):
        train(composed("data=beir", f"data.path={collection}", "trainer=cpu", "run_dir=run", *overrides.split()))
    assert not [*tmp_path.iterdir()]


def _damage(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Breaks a collection in one way after the other; yields what must be said of it, and overrides."""
    corpus = folder / "corpus.jsonl"
    lines = corpus.read_text().splitlines(keepends=True)
    corpus.write_text("".join([*lines[:4], '{"_id": "d4", "text": \n', *lines[5:]]))
    yield "corpus.jsonl", "row 5: malformed JSON .* more than data.max_bad_rows", []
    corpus.unlink()
    yield "corpus.jsonl", "does not exist", []
    (folder / "corpus.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode())[:-20])
    yield "corpus.jsonl.gz", "cannot be read to its end", []
    (folder / "corpus.jsonl.gz").unlink()
    corpus.write_text("".join(lines))
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\n")
    yield "dev.tsv", "holds no judgement", []
    (folder / "qrels" / "dev.tsv").unlink()
    yield "data.validation_split=dev", r"valid: test, train", []
    given = ["negatives=given", "data.validation_split=test"]
    yield "negatives=given", "needs data with triplets.* use negatives=", given


def test_damaged_data(tmp_path: Path, refused: Callable[..., None]) -> None:
    folder = write_collection(tmp_path / "broken", documents=60, triples=False)
    base = ["train.py", "data=beir", f"data.path={folder}", "data.batch_size=8", "trainer=cpu"]
    for place, problem, overrides in _damage(folder):
        refused(f"{re.escape(place)}.*{problem}", *base, *overrides)


EMBED = {
    "": "^run is not set and has no default: add run=VALUE",
    "run=nowhere": "^nowhere is not the folder of a run",
    "run=x index=flt": r"^index=flt does not exist; did you mean 'flat'\?",
    "rnu=x": r"^rnu does not exist; did you mean 'run'\?",
    "run=x shard_rows=0": "^shard_rows=0 must be at least 1",
    "run=x shard_rows=1e3": "^shard_rows=1000.0 has the wrong type: it must be a whole number",
    "run=x data.path=y": "^data.path does not exist, since no data is chosen: add data=CHOICE",
    "run=x data=beir": "^data.path is not set and has no default",
}
TWO_TOWER = {
    "serch": r"^two-tower serch does not exist; did you mean 'search'\? \(valid: .*search",
    "search": "^Missing argument 'run'",
    "search nowhere x": "^nowhere is not the folder of a run",
    "search x y z": r"unexpected extra argument.*z",
    "search x y -k 0": "^Invalid value for '-k': .*greater than or equal to 1",
    "search x y --jsn": "^No such option: --jsn .*--json",
    "evaluate nowhere": "^nowhere is not the folder of a run",
}


OTHERS = [("embed.py", *case) for case in EMBED.items()] + [("two-tower", *case) for case in TWO_TOWER.items()]


@pytest.mark.parametrize(("program", "arguments", "expected"), OTHERS)
def test_the_other_commands(program: str, arguments: str, expected: str, refused: Callable[..., None]) -> None:
    refused(expected, program, *arguments.split())


def test_what_is_wrong_with_a_run(collection: Path, tmp_path: Path, call: Call, refused: Callable[..., None]) -> None:
    run = tmp_path / "run"
    base = ["data=beir", f"data.path={collection}", "data.batch_size=32", "trainer=cpu", "tower.dim=8"]
    assert call("train.py", *base, "trainer.max_steps=3", f"run_dir={run}").status == 0
    refused("holds no finished index: run  python embed.py run=.*run  first", "two-tower", "search", run, "x")
    refused(r"has no split 'dve'.*did you mean 'dev'\?", "two-tower", "evaluate", run, "--split", "dve")
    refused("no is no folder", "two-tower", "evaluate", run, "--data", "no")
    refused("trainer.max_steps: 3 → 4", "train.py", *base, "trainer.max_steps=4", f"run_dir={run}")
    refused("/dev/null/x cannot be used: Not a directory", "embed.py", f"run={run}", "output=/dev/null/x")
    assert call("embed.py", f"run={run}").status == 0
    refused("made with another dtype", "embed.py", f"run={run}", "dtype=int8")
    (run / "checkpoints" / "best.ckpt").write_text("no checkpoint")
    refused("best.ckpt cannot be read as a checkpoint", "two-tower", "search", run, "x")


def test_a_corrected_command_may_use_the_same_run_dir(collection: Path, call: Call, tmp_path: Path) -> None:
    base = ["train.py", "data=beir", f"data.path={collection}", "trainer=cpu", "tower.dim=8", "trainer.max_epochs=1"]
    assert call(*base, "run_dir=r", "data.batch_size=1000").status == 2
    assert call(*base, "run_dir=r", "data.batch_size=100").status == 0


def test_as_a_process(tmp_path: Path) -> None:
    for arguments, expected in (
        (("train.py", "-m", "tower=averge"), "did you mean 'average'"),
        (("two-tower", "serch"), "did you mean 'search'"),
    ):
        done = run_command(*arguments, cwd=tmp_path)
        is_one_sentence(done.stderr, expected)
        assert (done.returncode, done.stdout) == (2, "")
