"""The two-tower command. Nothing heavy is imported before it is needed, so that ``--help`` answers at once."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from two_tower.errors import UserError, exit_statuses, one_of


def _example(words: str) -> str:
    """The end of a command's help: one line to paste, with names in capitals to replace."""
    return f"\b\nExample:\n  two-tower {words}"


app = typer.Typer(
    name="two-tower", epilog=_example('search RUN "your question"'), pretty_exceptions_enable=False,
    rich_markup_mode=None,
)  # fmt: skip
data_app = typer.Typer(help="What a collection is like.", epilog=_example("data inspect data=beir data.path=FOLDER"))
cache_app = typer.Typer(epilog=_example("cache"))
app.add_typer(data_app, name="data")
app.add_typer(cache_app, name="cache")

INTERRUPTED = 130  # what typer makes of Ctrl-C

RunFolder = Annotated[Path, typer.Argument(help="folder of a run, made by train.py", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="print one JSON document and nothing else")]
Hybrid = Annotated[bool, typer.Option("--hybrid", help="fuse the run with BM25")]
Index = Annotated[Path | None, typer.Option(help="folder that embed.py wrote, if not RUN/index")]
Indexes = Annotated[
    list[Path] | None, typer.Option("--index", help="folder that embed.py wrote, if not RUN/index; may be repeated")
]
Filters = Annotated[
    list[str] | None, typer.Option("--filter", help="only passages with such a field: lang=de, year>=2020; repeatable")
]
BeirFolder = Annotated[Path | None, typer.Option(help="folder in the BEIR layout")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="data as for train.py, for example data=beir data.path=FOLDER", show_default=False),
]
HYDRA = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}  # it reads sys.argv itself


@app.callback()
def _root(context: typer.Context) -> None:
    """Train two-tower models, search with them, and judge them."""
    from two_tower.console import work_alone

    if context.invoked_subcommand != "train":  # which may be one of several processes
        work_alone()


@app.command(context_settings=HYDRA)
def train() -> None:
    """Run an experiment, or with -m a sweep: as train.py."""
    from two_tower.train import main

    main()


@app.command(context_settings=HYDRA)
def embed() -> None:
    """Encode a corpus with a run and index it: as embed.py."""
    from two_tower.embed import main

    main()


@app.command(epilog=_example('search RUN "your question" -k 3 --hybrid'))
def search(
    run: RunFolder,
    query: Annotated[str | None, typer.Argument(help="the question; else a prompt asks, or a pipe's lines")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="how many passages")] = 10,
    index: Indexes = None,
    hybrid: Hybrid = False,
    where: Filters = None,
    as_json: AsJson = False,
) -> None:
    """Find the passages nearest to a query, in each index for itself."""
    from two_tower.ask import ask

    ask(run, index or [], query, k, "hybrid" if hybrid else "dense", as_json, where or [])


@app.command(epilog=_example("serve RUN OTHER_RUN --port 8000"))
def serve(
    runs: Annotated[list[Path], typer.Argument(help="folders of embedded runs", show_default=False)],
    host: Annotated[str, typer.Option(help="address; 0.0.0.0 is reached from other machines")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any that is free")] = 8000,
    bm25: Annotated[bool, typer.Option("--bm25/--no-bm25", help="search by words as well, which takes memory")] = True,
    max_k: Annotated[int, typer.Option(min=1, help="most passages of an answer")] = 100,
    max_body: Annotated[int, typer.Option(min=1, help="most bytes of a request")] = 65_536,
    max_queue: Annotated[int, typer.Option(min=1, help="most requests that wait")] = 256,
    timeout: Annotated[float, typer.Option(min=0.001, help="longest time of a search, in seconds")] = 10.0,
    index: Indexes = None,
    watch: Annotated[bool, typer.Option("--watch", help="take up an index that embed.py has renewed")] = False,
    files: Annotated[Path | None, typer.Option(help="folder of the documents, for the page to link to")] = None,
    browser: Annotated[bool, typer.Option("--open", help="open the page in a browser")] = False,
) -> None:
    """Serve runs over HTTP: a JSON API and a search page. SIGHUP makes it take up its indexes anew."""
    from two_tower.console import counter

    with counter("Loading PyTorch"):
        from two_tower.serve import Limits, serve
    limits = Limits(body=max_body, k=max_k, seconds=timeout, queue=max_queue)
    serve(runs, host, port, limits, bm25, index or [], watch, files, browser)


@app.command(epilog=_example("start FOLDER"))
def start(
    path: Annotated[Path, typer.Argument(help="folder of documents, or one document", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="settings as for train.py, for example tower=gru", show_default=False)
    ] = None,
    run: Annotated[Path | None, typer.Option(help="folder of the run, if not runs/NAME")] = None,
    host: Annotated[str, typer.Option(help="address of the search page")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="0 takes any that is free")] = 8000,
    page: Annotated[bool, typer.Option("--page/--no-page", help="serve a search page at the end")] = True,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="open it in a browser")] = True,
) -> None:
    """From documents (text, Markdown, HTML, PDF, tables) to a search page, in one command."""
    from two_tower.start import start as begin

    begin(path, overrides or [], run, host, port, page, browser)


@app.command(epilog=_example("evaluate RUN --split test --hybrid"))
def evaluate(
    run: RunFolder,
    overrides: Overrides = None,
    data: BeirFolder = None,
    split: Annotated[
        str, typer.Option(help="which queries: dev or test", autocompletion=lambda: ["dev", "test", "train"])
    ] = "dev",
    hybrid: Hybrid = False,
    output: Annotated[
        Path | None, typer.Option(help="folder for the rankings, judgements and figures of each query")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Whole-corpus metrics of a run with intervals, beside BM25 on the same corpus: the run's own, or another."""
    from two_tower.console import aside, command, counter, say, say_next
    from two_tower.run import Run

    overrides = _with_folder(overrides or [], data)
    with aside(as_json), counter(f"Evaluating {run}", "queries") as pace:
        from two_tower.evaluation import describe, evaluate_run

        results = evaluate_run(run, _data_of(overrides) if overrides else None, split, hybrid, output)
        pace(results["queries"])
    if as_json:
        return _print_json(results)
    say("\n".join(describe(results)))
    say(f"\nEvaluated {pace}.", style="dim")
    if not (hybrid or Run(run).hybrid.exists()):
        say_next(command("two-tower", "evaluate", run, *overrides, "--split", split, "--hybrid"))
    elif Run(run).complete:
        say_next(command("two-tower", "compare", run))


def _with_folder(overrides: list[str], folder: Path | None) -> list[str]:
    """The overrides, with what ``--data FOLDER`` stands for."""
    if folder is None:
        if overrides and not any(override.startswith("data=") for override in overrides):
            raise UserError(f"{overrides[0]} says nothing of which data: add --data FOLDER or data=SOURCE")
        return overrides
    for override in overrides:
        if re.match(r"data(\.path)?=", override):
            raise UserError(f"--data {folder} and {override} both say which data: leave one of them out.")
    return ["data=beir", f"data.path={folder}", *overrides]


def _data_of(overrides: list[str]) -> dict[str, Any]:
    """The group ``data`` that train.py would have."""
    from two_tower.config.compose import composed
    from two_tower.data.base import LOADER_KEYS

    for override in overrides:
        if not re.match(r"[+~]*data\b", override):
            raise UserError(f"{override} is no setting of data: leave it out.")
    return composed(overrides, {"data": LOADER_KEYS})["data"]


@app.command(epilog=_example("compare RUN OTHER_RUN --html FILE"))
def compare(
    runs: Annotated[list[Path], typer.Argument(help="folders of runs or of sweeps", show_default=False)],
    metric: Annotated[str | None, typer.Option(help="what to order and test by, if not what validation used")] = None,
    html: Annotated[Path | None, typer.Option(help="file for a page with plots")] = None,
    plots: Annotated[Path | None, typer.Option(help="folder for the plots, as SVG files")] = None,
    as_json: AsJson = False,
) -> None:
    """Leaderboard of finished runs, with tests of significance."""
    from two_tower.console import aside, command, counter, say, say_next
    from two_tower.files import write_text

    with aside(as_json), counter("Comparing runs") as pace:
        from two_tower.report.leaderboard import leaderboard
        from two_tower.report.page import html_page, markdown_page, pictures

        board = leaderboard(runs, metric)
    drawn = {plots / f"{name}.svg": picture for name, picture in pictures(board).items()} if plots else {}
    for file, picture in drawn.items():
        write_text(file, picture.document())
    if html:
        write_text(html, html_page(board))
    if as_json:
        return _print_json(board.to_dict())
    say(markdown_page(board))
    if html:
        say(f"Page with plots: {html}", style="dim")
    if drawn:
        say(f"Plots: {', '.join(map(str, drawn))}", style="dim")
    say(f"Compared {pace}.", style="dim")
    best = board.rows[0].runs[0]
    if "test" in (best.data or {}).get("splits", ()):
        say_next(command("two-tower", "evaluate", best.path, "--split", "test"))


@app.command(epilog=_example("doctor RUN"))
def doctor(run: RunFolder, index: Index = None, as_json: AsJson = False) -> None:
    """Say what is wrong with a finished or running run and its index, and what to change."""
    from two_tower.console import aside, command, counter, say, say_next

    with aside(as_json), counter(f"Examining {run}") as pace:
        from two_tower.doctor.record import document, report
        from two_tower.examine import examine, retry

        result = examine(run, index)
    if as_json:
        return _print_json({**document(result.findings, result.signals), "unchecked": result.unchecked})
    report(result.findings, result.signals, result.unchecked)
    say(f"Examined {pace}.", style="dim")
    if overrides := retry(run, result.findings):
        say_next(command("python", "train.py", *overrides))


@app.command(epilog=_example("dashboard RUN OTHER_RUN"))
def dashboard(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="folders of runs or of sweeps; without any, all of the project", show_default=False),
    ] = None,
    project: Annotated[str | None, typer.Option(help="the W&B project, if not that of the runs or two-tower")] = None,
    entity: Annotated[str | None, typer.Option(help="user or team, if not that of the runs or the account's")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a W&B workspace for runs with logger=wandb; without an account, print it as JSON."""
    from two_tower.console import say
    from two_tower.logger._dashboard import Dashboard

    plan = Dashboard.from_runs(runs or [], project, entity)
    if not as_json and (address := plan.create()) is not None:
        return say(address)
    _print_json({"project": plan.project, "entity": plan.entity, "runs": [*plan.runs], "sections": plan.sections})
    if not as_json:
        sys.stderr.write("Nothing was created: there is no W&B account here. After  wandb login  run this again.\n")


@app.command(epilog=_example("update RUN NEW_RUN --data FOLDER"))
def update(
    run: RunFolder,
    path: Annotated[Path, typer.Argument(help="new run folder", show_default=False)],
    overrides: Overrides = None,
    data: BeirFolder = None,
) -> None:
    """Let a run follow its collection: new passages and words, some steps of training, a fresh index."""
    from two_tower.console import command, counter, say_next, show_log

    overrides = _with_folder(overrides or [], data)
    if not overrides:
        raise UserError("Say what the collection is now: --data FOLDER, or data=SOURCE with its settings.")
    show_log()
    with counter("Loading PyTorch and Lightning"):
        from two_tower.update import update_run
    if update_run(run, _data_of(overrides), path):
        say_next(command("two-tower", "compare", run, path))


@app.command(epilog=_example("export RUN FOLDER"))
def export(run: RunFolder, path: Annotated[Path, typer.Argument(help="new folder", show_default=False)]) -> None:
    """Write a folder that sentence_transformers.SentenceTransformer(PATH) loads, with equal vectors."""
    from two_tower.console import counter, say

    with counter(f"Exporting {run}") as pace:
        from two_tower.export import export_run

        remarks = export_run(run, path)
    for remark in remarks:
        say(remark)
    say(f"Exported {pace}.", style="dim")
    say(f"{path / 'README.md'}: its card; read it before you pass the model on.", style="dim")
    say(f'{path}: load it with  sentence_transformers.SentenceTransformer("{path}")')


@cache_app.callback(invoke_without_command=True)
def cache(context: typer.Context) -> None:
    """What is kept of prepared data, and how large it may grow."""
    from two_tower.cache import VARIABLE, cache_folder, entries, limit, size_of
    from two_tower.console import say

    if context.invoked_subcommand:
        return
    kept = entries()
    kinds = {kind: [each for each in kept if each.kind == kind] for kind in dict.fromkeys(each.kind for each in kept)}
    most, total = limit(), sum(each.bytes for each in kept)
    say(f"{cache_folder()}: {size_of(total)} of {size_of(most)} at most ({VARIABLE})")
    for kind, its in sorted(kinds.items(), key=lambda pair: -sum(each.bytes for each in pair[1])):
        days = (time.time() - max(each.used for each in its)) / 86_400
        say(f"  {kind:<14} {len(its):>6,} {size_of(sum(each.bytes for each in its)):>9}   used {days:.0f} days ago")


@cache_app.command("clear", epilog=_example("cache clear corpus"))
def clear_cache(
    kinds: Annotated[list[str] | None, typer.Argument(help="what to delete; all if none is named")] = None,
) -> None:
    """Delete prepared data; what is needed again is made again."""
    from two_tower.cache import clear, size_of
    from two_tower.console import say

    gone = clear(kinds or [])
    say(f"{len(gone):,} entries deleted, {size_of(sum(each.bytes for each in gone))}.")


@data_app.command("inspect", epilog=_example("data inspect data=beir data.path=FOLDER --json"))
def inspect_data(overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Sizes, lengths, unknown words, copies, leakage and mistakes of a collection."""
    from two_tower.console import aside, command, counter, say, say_next

    with aside(as_json), counter("Inspecting", "passages") as pace:
        from two_tower.doctor.facts import inspect
        from two_tower.doctor.inspect_page import show

        facts = inspect(overrides or [])
    if as_json:
        return _print_json(facts)
    show(facts)
    pace(facts["passages"]["count"])
    say(f"\nInspected {pace}.", style="dim")
    if {facts["source"]["train_split"], facts["source"]["validation_split"]} <= {*facts["splits"]}:
        say_next(command("python", "train.py", *(overrides or [])))


def _print_json(document: Mapping[str, Any]) -> None:
    from two_tower.files import json_line

    sys.stdout.write(json_line(document, sys.stdout))


def main() -> None:
    """Run the command; 0 done, 2 a user's mistake (one sentence on stderr), 1 anything else."""
    with exit_statuses():
        try:
            status = app(sys.argv[1:] or ["--help"], prog_name="two-tower", standalone_mode=False)
        except Exception as error:
            if getattr(error, "exit_code", None) != 2 or not hasattr(error, "format_message"):
                raise
            raise UserError(_usage(error)) from error
        if status == INTERRUPTED:
            raise KeyboardInterrupt
    sys.exit(status if isinstance(status, int) else 0)


def _usage(error: Any) -> str:  # noqa: ANN401  (typer's own; its class is private)
    """The parser's complaint; of an unknown command, with the nearest one."""
    complaint = error.format_message()
    if unknown := re.match("No such command '(.*?)'", complaint):
        place = error.ctx.command_path
        return f"{place} {unknown[1]} does not exist; {one_of(unknown[1], error.ctx.command.list_commands(error.ctx))}"
    return f"{complaint.rstrip('.')}; see --help"
