"""Judgements of the page: kept for each corpus, taken back, exported; and two-tower evaluate reads them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, word
from forked import run_forked
from serve.browsing import QUERY, Page, search, settled
from serve.serving import Service, served

from two_tower.search import Searcher
from two_tower.serve import Runs

OTHER = f"{word(1003)} {word(1004)} \U0001d4b3"


def pressed(page: Page) -> list[tuple[str, str]]:
    """The passages that are judged, and as what."""
    script = "all => all.map(one => [one.closest('li').dataset.id, one.textContent])"
    return [tuple(pair) for pair in page.locator("[data-grade][aria-pressed=true]").evaluate_all(script)]


def ids(page: Page) -> list[str]:
    return page.locator("#columns li").evaluate_all("all => all.map(item => item.dataset.id)")


def judge_two_questions(page: Page) -> tuple[str, str, str]:
    """The first passage is right and the second wrong for one question, the third right for another."""
    page.select_option("#way", label="first")
    search(page, QUERY)
    page.get_by_role("button", name="Judge").click()
    first, second, *_ = ids(page)
    for key in ("ArrowDown", "r", "ArrowDown", "n"):
        page.keyboard.press(key)
    assert pressed(page) == [(first, "Relevant"), (second, "Not relevant")]
    search(page, OTHER)
    assert pressed(page) == []
    page.locator("#columns li").nth(2).get_by_role("button", name="Relevant", exact=True).click()
    return first, second, ids(page)[2]


def test_judgements_are_kept_and_taken_back(page: Page, service: Service) -> None:
    search(page, QUERY)
    assert not page.locator(".grades").first.is_visible()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("r")  # no key before the page judges
    assert pressed(page) == []
    first, second, _ = judge_two_questions(page)
    assert "2 relevant, 1 not, of 2 questions" in page.inner_text("#judged")
    page.goto(f"{service.url}/?q={QUERY.replace(' ', '+')}&in=first&judge=1")
    settled(page)
    page.wait_for_selector("#columns li")
    assert pressed(page) == [(first, "Relevant"), (second, "Not relevant")]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("n")
    assert pressed(page) == [(first, "Not relevant"), (second, "Not relevant")]
    page.keyboard.press("n")
    assert pressed(page) == [(second, "Not relevant")]
    page.get_by_role("button", name="Compare").click()  # the other columns show the same
    settled(page)
    assert set(pressed(page)) == {(second, "Not relevant")}
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Forget all").click()
    assert "1 relevant, 1 not, of 2 questions" in page.inner_text("#judged")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Forget all").click()
    assert (pressed(page), page.get_by_role("button", name="Export").count()) == ([], 0)


def test_a_browser_that_keeps_nothing_says_so(page: Page) -> None:
    search(page, QUERY)
    page.get_by_role("button", name="Judge").click()
    page.evaluate("() => { Storage.prototype.setItem = () => { throw new Error('full') } }")
    for key in ("ArrowDown", "r"):
        page.keyboard.press(key)
    assert "keep nothing" in page.inner_text("#status")
    assert pressed(page) == []


def test_each_corpus_has_its_own(page: Page, run_folders: list[Path]) -> None:
    search(page, QUERY)
    page.get_by_role("button", name="Judge").click()
    for key in ("ArrowDown", "r"):
        page.keyboard.press(key)
    assert len(pressed(page)) == 1
    searcher = Searcher.load(run_folders[0])
    searcher.store.manifest.corpus = "another"
    with served(Runs([searcher], bm25=False)) as other:
        kept = moved(page.context.storage_state(), other.url)
        context = page.context.browser.new_context(storage_state=kept)
        elsewhere = context.new_page()
        elsewhere.goto(f"{other.url}/?{page.url.partition('?')[2]}")
        elsewhere.wait_for_selector("#columns li")
        assert elsewhere.evaluate("localStorage.length") == 1
        assert pressed(elsewhere) == []
        context.close()


def moved(state: dict, url: str) -> dict:
    """What a browser keeps for one service, as if it were kept for another."""
    return {**state, "origins": [{**origin, "origin": url} for origin in state["origins"]]}


def exported(page: Page, folder: Path) -> str:
    """The lines that the page shows; its files are in the folder."""
    page.get_by_role("button", name="Export").click()
    for name in ("qrels.tsv", "queries.jsonl"):
        with page.expect_download() as download:
            page.get_by_role("link", name=f"Download {name}").click()
        assert download.value.suggested_filename == name
        download.value.save_as(folder / name)
    shown = page.input_value("#qrels")
    page.get_by_role("dialog").get_by_role("button", name="Close").click()
    return shown


def test_what_is_exported_is_what_was_judged(page: Page, tmp_path: Path) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    first, second, third = judge_two_questions(page)
    shown = exported(page, tmp_path)
    queries = [json.loads(line) for line in (tmp_path / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [query["text"] for query in queries] == [QUERY, OTHER]
    one, two = (query["_id"] for query in queries)
    assert re.fullmatch("judged-[0-9a-f]{16}", one)
    assert one != two
    assert (tmp_path / "qrels.tsv").read_text() == (
        f"query-id\tcorpus-id\tscore\n{one}\t{first}\t1\n{one}\t{second}\t0\n{two}\t{third}\t1\n"
    )
    assert shown == f"{one}\t0\t{first}\t1\n{one}\t0\t{second}\t0\n{two}\t0\t{third}\t1\n"
    page.get_by_role("button", name="Export").click()
    page.get_by_role("button", name="Copy qrels").click()
    page.wait_for_selector("text=Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == shown


def documented() -> tuple[list[str], str]:
    """What docs/serve.md says to do with the two files: commands of a shell, and a program."""
    part = (ROOT / "docs" / "serve.md").read_text().partition("## Judging")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", part)
    shell = next(block for block in blocks if "two-tower evaluate" in block)
    program = next(block for block in blocks if "import" in block)
    return [line.strip() for line in shell.splitlines() if line.strip()], re.sub(r"(?m)^    ", "", program)


@pytest.mark.parametrize("passages", ["collection", "index"])
def test_evaluate_reads_them(
    page: Page, run_folders: list[Path], collection: Path, tmp_path: Path, passages: str
) -> None:
    judge_two_questions(page)
    exported(page, tmp_path)
    (*shell, evaluation), program = documented()
    for line in shell:
        if passages == "collection" or "corpus" not in line:
            command = line.partition("#")[0].replace("FOLDER", str(run_folders[0].parent / "collection"))
            subprocess.run(command, shell=True, check=True, cwd=tmp_path)
    if passages == "index":
        program = program.replace("RUN/index", str(run_folders[0] / "index"))
        subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    words = [str(run_folders[0]) if each == "RUN" else each for each in evaluation.split()]
    done = run_forked(*words, "--json", cwd=tmp_path)
    assert done.status == 0, done.err
    results = json.loads(done.out)
    assert (results["queries"], results["documents"], results["split"]) == (2, 243, "test")
    assert results["dense/mrr@10"] == pytest.approx((1 + 1 / 3) / 2)  # the ranks that the page has shown
    assert results["dense/recall@10"] == 1
