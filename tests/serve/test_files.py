"""The documents behind the passages: those of one folder, nothing else, and nothing in them runs."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.serving import Service, served

from two_tower.serve import Runs

for package in ("fastapi", "prometheus_client"):
    pytest.importorskip(package, reason="needs the service: pip install -e '.[serve]'")

SCRIPT = "document.title = 'ran'"
PAGE = f'<title>page</title><h1>Ü</h1><script>{SCRIPT}</script><img src=x onerror="{SCRIPT}">'
OFFERED = {
    "install.md": "text/plain; charset=utf-8", "guide/a b.TXT": "text/plain; charset=utf-8",
    "guide/ü.html": "text/html; charset=utf-8", "rows.jsonl": "text/plain; charset=utf-8",
    "rows.csv": "text/plain; charset=utf-8", "manual.pdf": "application/pdf",
    "picture.svg": "image/svg+xml", "picture.JPG": "image/jpeg",
}  # fmt: skip
SECRET = "a secret"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of documents, with others around it and links out of it."""
    around = tmp_path_factory.mktemp("around")
    folder = around / "documents"
    for name in OFFERED:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PAGE if name.endswith("html") else f"# {name} ü", encoding="utf-8")
    for secret in (
        around / "outside.md", around / "documents-2" / "near.md", folder / ".hidden.md", folder / ".git" / "a.md",
        folder / "key.pem", folder / "script.js", folder / "no_suffix",
    ):  # fmt: skip
        secret.parent.mkdir(exist_ok=True)
        secret.write_text(SECRET)
    for link, to in (
        ("link.md", around / "outside.md"), ("up", around), ("to_hidden.md", folder / ".hidden.md"),
        ("to_key.md", folder / "key.pem"), ("round", folder / "round"),
    ):  # fmt: skip
        (folder / link).symlink_to(to)
    (folder / "inside.md").symlink_to(folder / "install.md")
    os.mkfifo(folder / "pipe.txt")
    return folder


@pytest.fixture(scope="module")
def service(runs: Runs, folder: Path) -> Iterator[Service]:
    with served(runs, files=folder) as running:
        yield running


def quoted(name: str) -> str:
    return name.replace(" ", "%20").replace("ü", "%C3%BC")


def test_documents_are_shown_as_they_are(service: Service, folder: Path) -> None:
    for name, kind in OFFERED.items():
        status, content, headers = service.ask(f"/files/{quoted(name)}")
        assert (status, content) == (200, (folder / name).read_text(encoding="utf-8")), name
        assert headers["content-type"] == kind
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("sandbox; default-src 'none';")
        assert "allow" not in headers["content-security-policy"]
        assert "attachment" not in headers.get("content-disposition", "")
    (folder / "rows.json").write_text('{"a": 1}')
    assert service.ask("/files/rows.json")[:2] == (200, {"a": 1})
    assert service.ask("/files/guide%2Fa%20b.TXT")[0] == 200
    assert service.ask("/files/inside.md")[0] == 200  # a link within the folder
    assert {tuple(run["files"]) for run in service.ask("/runs")[1]} == {(f"{folder.as_uri()}/",)}


@pytest.mark.parametrize(
    "path",
    [
        "", "/", ".", "guide", "guide/", "nothing.md", "key.pem", "script.js", "no_suffix", "pipe.txt", ".hidden.md",
        ".git/a.md", "guide/../.hidden.md", "../outside.md", "guide/../../outside.md", "%2e%2e/outside.md",
        "%2e%2e%2foutside.md", "..%2foutside.md", "..%5coutside.md", "%252e%252e/outside.md", "..;/outside.md",
        "../documents-2/near.md", "//etc/hosts.txt", "%2fetc%2fhosts.txt", "guide//a%20b.TXT", "./install.md",
        "link.md", "up/outside.md", "to_hidden.md", "to_key.md", "round", "round/a.md", "install.md%00", "%00",
        "install.md%00.pem", "install.md/", "install.md/a.md", "guide/../install.md", "%ff.md", "a" * 5000 + ".md",
        "install.md::$DATA", "C:%5cinstall.md", "file:///etc/hosts",
    ],
)  # fmt: skip
def test_nothing_else_is(service: Service, path: str) -> None:
    status, answer, headers = service.ask(f"/files/{path}")
    assert (status, answer) == (404, {"detail": "Not Found"})
    assert headers["content-security-policy"].startswith("default-src 'none'")


def test_requests_that_are_none(service: Service) -> None:
    answer = service.send(b"GET /files/install.md\0.txt HTTP/1.1\r\nhost: a\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert service.ask("/files/install.md", body="{}")[0] == 405
    assert service.send(b"DELETE /files/install.md HTTP/1.1\r\nhost: a\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert service.ask("/files/install.md")[0] == 200


def test_without_a_folder_there_are_no_files(runs: Runs) -> None:
    with served(runs) as service:
        assert service.ask("/files/install.md")[0] == 404
        assert service.ask("/runs")[1][0]["files"] == []


def test_a_folder_is_known_by_its_links_too(runs: Runs, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(folder)
    with served(runs, files=tmp_path / "named") as service:
        names = [f"{path.as_uri()}/" for path in (tmp_path / "named", folder)]
        assert service.ask("/runs")[1][0]["files"] == names
        assert service.ask("/files/install.md")[0] == 200


def test_no_script_of_a_document_runs(service: Service, browser: Any) -> None:  # noqa: ANN401
    shown = browser.new_page()
    shown.goto(f"{service.url}/files/{quoted('guide/ü.html')}")
    assert (shown.inner_text("h1"), shown.title()) == ("Ü", "page")
    shown.close()
