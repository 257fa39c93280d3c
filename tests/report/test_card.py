"""The card of a run says what evaluating it again says; that of an exported model loads as Hugging Face reads it."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import write_collection
from forked import run_forked
from test_train import fit

from two_tower.config import read
from two_tower.data.beir import Beir
from two_tower.data.msmarco import MsMarco
from two_tower.data.msmarco_passage import MsMarcoPassage
from two_tower.data.pydocs import PyDocs
from two_tower.data.stream.corpus import Corpus
from two_tower.evaluation import evaluate_run
from two_tower.export import export_run
from two_tower.report.card import Trained, model_card
from two_tower.report.readme import UNSTATED, licence_of
from two_tower.run import Run

OPTIONS = ["data.unseen_share=0.3", "validation.hybrid=true", "trainer.max_epochs=2"]
SIGNS = "*look* [here](http://x) <b>now</b> | `a`\n# b"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection whose queries and passages hold what Markdown would obey, and a run on it."""
    folder = tmp_path_factory.mktemp("card")
    data = write_collection(folder / "beir", 120)
    for name in ("queries", "corpus"):
        rows = [json.loads(line) for line in (data / f"{name}.jsonl").read_text().splitlines()]
        rows = [{**row, "text": f"{SIGNS} {row['text']}"} | ({"title": ""} if name == "corpus" else {}) for row in rows]
        (data / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fit(data, folder / "run", *OPTIONS)
    return folder


@pytest.fixture(scope="module")
def card(folder: Path) -> str:
    return (folder / "run" / "report.md").read_text()


def section(page: str, title: str) -> str:
    return re.split(r"^#+ .*\n", page.partition(f"# {title}\n")[2], flags=re.MULTILINE)[0]


def rows_of(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines() if line[:1] == "|"]
    return {name: rest for name, *rest in cells}


def test_its_figures_are_those_of_evaluate(folder: Path, card: str) -> None:
    again, results = (
        evaluate_run(folder / "run", None, "dev"),
        json.loads((folder / "run" / "results.json").read_text()),
    )
    rows = rows_of(section(card, "Results"))
    assert rows[""] == ["this model", "BM25", "both fused"]

    def shown(name: str) -> str:
        star = " *" if again.get(f"{name}/p_vs_bm25", 1) < 0.05 else ""
        return f"{again[name]:.3f} [{again[f'{name}/low']:.3f}, {again[f'{name}/high']:.3f}]{star}"

    for metric in ("mrr@10", "recall@100", "ndcg@10"):
        assert rows[metric][1] == shown(f"bm25/{metric}")
        assert rows[f"{metric}, unseen"][1] == shown(f"bm25_unseen/{metric}")
        assert rows[f"{metric}, among new"] == [f"{results[f'{s}_new/{metric}']:.3f}" for s in ("val", "bm25")] + [""]
        assert rows[metric][0].startswith(f"{results[f'val/{metric}']:.3f} [")
        assert rows[metric][2].startswith(f"{results[f'hybrid/{metric}']:.3f} [")
    # The tower is evaluated with vectors for the words of passages kept out: that of the seen ones is the same task.
    assert rows["mrr@10, seen"][0].startswith(f"{results['val_seen/mrr@10']:.3f} [")


def test_a_run_that_has_seen_everything_has_the_figures_of_evaluate(collection: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run", "trainer.max_epochs=1", "tower.dim=8")
    again = evaluate_run(tmp_path / "run", None, "dev")
    rows = rows_of(section((tmp_path / "run" / "report.md").read_text(), "Results"))
    star = " *" if again["dense/mrr@10/p_vs_bm25"] < 0.05 else ""
    ends = f"[{again['dense/mrr@10/low']:.3f}, {again['dense/mrr@10/high']:.3f}]"
    assert rows["mrr@10"] == [
        f"{again['dense/mrr@10']:.3f} {ends}{star}",
        f"{again['bm25/mrr@10']:.3f} [{again['bm25/mrr@10/low']:.3f}, {again['bm25/mrr@10/high']:.3f}]",
    ]


def test_examples_are_queries_that_it_answers_worse(folder: Path, card: str) -> None:
    worst = section(card, "Worst beside BM25")
    queries = {row["_id"]: row["text"] for row in map(json.loads, (folder / "beir" / "queries.jsonl").open())}
    passages = {row["_id"]: row["text"] for row in map(json.loads, (folder / "beir" / "corpus.jsonl").open())}
    first = {q: d for q, _, d, place, *_ in map(str.split, (folder / "run" / "run.trec").open()) if place == "1"}

    def marked(text: str) -> str:
        line = " ".join(text.split())
        return line if len(line) <= 150 else line[:148].rsplit(" ", 1)[0] + " …"

    plain = re.sub(r"\\(.)", r"\1", worst)
    found = re.findall(r"^- “(.*)” \(mrr@10 (\S+), BM25 (\S+)\)\n.*wanted: (.*)\n.*found first: (.*)$", plain, re.M)
    assert len(found) == 3
    for text, own, bm25, wanted, found_first in found:
        query = next(q for q, its in queries.items() if marked(its) == text)
        assert float(own) < float(bm25)
        assert wanted == marked(passages[query.replace("q", "d")])
        assert found_first == marked(passages[first[query]])


def test_texts_of_the_data_mean_nothing_to_markdown(card: str) -> None:
    quoted = section(card, "Worst beside BM25") + section(card, "Best beside BM25")
    assert quoted.count(r"\*look\* \[here\](http://x) \<b\>now\</b\> \| \`a\` \# b") >= 3
    assert [line for line in card.splitlines() if line.startswith("# ")] == ["# run"]


def test_the_command_makes_it_again(folder: Path, tmp_path: Path) -> None:
    odd = tmp_path / "Daten (1), neu"
    shutil.copytree(folder / "beir", odd)
    typed = ["data=beir", f"data.path={odd}", "trainer=cpu", "trainer.max_epochs=1", "tower.dim=8", "seed=3"]
    assert run_forked("train.py", *typed, "run_dir=a", "console=quiet", cwd=tmp_path).status == 0
    line = section((tmp_path / "a" / "report.md").read_text(), "How it was trained").strip().splitlines()[0]
    program, script, *overrides = shlex.split(line)
    assert (program, script) == ("python", "train.py")
    assert run_forked("train.py", *overrides, "run_dir=b", "console=quiet", cwd=tmp_path).status == 0
    a, b = (read(tmp_path / run / "config.yaml") for run in "ab")
    places = {"run_dir", "console"}
    assert {k: v for k, v in a.items() if k not in places} == {k: v for k, v in b.items() if k not in places}
    assert (tmp_path / "a" / "per_query.csv").read_bytes() == (tmp_path / "b" / "per_query.csv").read_bytes()


def test_a_run_that_was_interrupted_at_its_very_end_has_the_same_card(folder: Path, card: str, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    for name in ("results.json", "report.md"):
        (run / name).unlink()
    fit(folder / "beir", run, *OPTIONS)
    again = (run / "report.md").read_text()
    for title in ("Results", "Best beside BM25", "Worst beside BM25", "Limits", "What it was trained on"):
        assert section(again, title) == section(card, title)


def test_what_it_is_and_where_that_ends(card: str) -> None:
    for sentence in (
        "- **Tower**: `average`, one tower for queries and passages",
        "- **Vectors**: 16 dimensions; nearness is the `cosine` similarity.",
        "- **Teacher**: none, it learned from judgements.",
        "- **Collection**: beir (`data=beir`), 120 passages.",
        "queries of `dev`; there is also `test`, not looked at.",
        "mrr@10 by whether the answers were seen in training: seen 0.",
        "The best of 2 checks was chosen on these very queries of `dev`",
        "**few_validation_queries** (info)",
        f"Its data: {UNSTATED}.",
    ):
        assert sentence in card


def test_what_is_not_measured_is_said(collection: Path, tmp_path: Path) -> None:
    fit(collection, tmp_path / "run", "trainer.max_epochs=1", "validation.bm25=false", "~callbacks.doctor")
    page = (tmp_path / "run" / "report.md").read_text()
    assert "BM25 was not measured beside it (`validation.bm25=false`)." in page
    assert "No doctor watched this run" in page
    assert "`data.unseen_share=0.1` does" in page
    assert rows_of(section(page, "Results"))[""] == ["this model"]


def test_sources_state_their_licence() -> None:
    assert "non-commercial" in MsMarco.licence == MsMarcoPassage.licence
    assert "each package" in PyDocs.licence
    assert Beir.licence is None


def exported(folder: Path, path: Path) -> Any:  # noqa: ANN401
    hub = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub, which datasets brings")
    export_run(folder / "run", path)
    return hub.ModelCard.load(path / "README.md", ignore_metadata_errors=False)


def test_the_card_of_an_exported_model(folder: Path, card: str, tmp_path: Path) -> None:
    page = exported(folder, tmp_path / "model")
    assert page.data.library_name == "sentence-transformers"
    assert page.data.pipeline_tag == "sentence-similarity"
    assert page.data.license is None
    assert page.data.tags[0] == "sentence-transformers"
    assert section(page.text, "Results") == section(card, "Results")
    assert section(page.text, "Licence") == section(card, "Licence")
    assert "http" not in page.text  # no text of the data
    assert "Worst beside BM25" not in page.text


def test_a_known_licence_is_in_the_front_matter(folder: Path, tmp_path: Path) -> None:
    run = shutil.copytree(folder / "run", tmp_path / "run")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("two_tower.data.beir.Beir", "two_tower.data.pydocs.PyDocs"))
    (run / "report.md").unlink()
    assert licence_of(Run(run)) == PyDocs.licence
    page = exported(tmp_path, tmp_path / "model")
    assert page.data.license == "other"
    assert "This run has not ended" in page.text


def test_how_to_load_it_works(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason='needs pip install -e ".[bench]"')
    page = exported(folder, tmp_path / "model")
    (code,) = re.findall(r"```python\n(.*?)```", page.text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace("FOLDER", str(tmp_path / "model")), names)
    assert names["model"].similarity(names["queries"], names["passages"]).shape == (1, 2)


def test_writing_it_reads_no_text_of_the_corpus_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the corpus was read while the card was written")

    original = model_card

    def watched(of: Trained) -> str:
        with monkeypatch.context() as patched:
            patched.setattr(Beir, "corpus", refuse)
            patched.setattr(Corpus, "texts", refuse)
            return original(of)

    monkeypatch.setattr("two_tower.report.results.model_card", watched)
    fit(folder / "beir", tmp_path / "run", *OPTIONS)
    assert "wanted: " in (tmp_path / "run" / "report.md").read_text()
