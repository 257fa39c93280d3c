"""Commands as processes of their own that need not import anything: a server that has done so forks them.

They share nothing with each other but what the imports made, as when a person starts them, and may be killed.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["preloaded"])
SERVER = "TWO_TOWER_TESTS_SERVER"  # the variable with the address of the server, where one was started for all


def start_server() -> None:
    """Start the server now, for this process and for those that it starts: its imports take eight seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "tests"))  # where it finds what it is to import
        patch.setenv("OMP_NUM_THREADS", "1")
        forkserver.ensure_running()
    os.environ[SERVER] = str(forkserver._forkserver._forkserver_address)


def find_server() -> None:
    """Use the server that was started for all, or start one."""
    server = forkserver._forkserver
    if SERVER not in os.environ:
        start_server()
    elif server._forkserver_address is None:
        server._forkserver_address = os.environ[SERVER]
        server._forkserver_alive_fd = os.open(os.devnull, os.O_WRONLY)
        server.ensure_running = lambda: None


class Ended(NamedTuple):
    """How a command ended: its status, or the negative number of the signal that killed it, and both streams."""

    status: int
    out: str
    err: str


class Command:
    """A command that runs in a process group of its own."""

    def __init__(self, *arguments: str | Path, cwd: Path, environment: Mapping[str, str] = {}) -> None:
        (out, its_out), (err, its_err) = (FORKS.Pipe(duplex=False) for _ in range(2))
        settings = {**os.environ, "COLUMNS": "200", **environment}
        work = (list(map(str, arguments)), str(cwd), settings, its_out, its_err)
        find_server()
        self._process = FORKS.Process(target=_run, args=work)
        self._process.start()
        its_out.close()
        its_err.close()
        self._pool = ThreadPoolExecutor(2)  # nothing that is written may wait for a reader
        self._read = [self._pool.submit(_read, stream) for stream in (out, err)]

    def send(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self._process.pid, number)

    def check_alive(self) -> None:
        assert self._process.exitcode is None, self.ended()

    def ended(self) -> Ended:
        """Once it and all processes that it started have."""
        out, err = (each.result(timeout=200) for each in self._read)
        self._process.join()
        assert self._process.exitcode is not None
        return Ended(self._process.exitcode, out, err)

    def kill_all(self) -> None:
        """It and the processes that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        self._process.join()
        self._pool.shutdown()


@contextmanager
def forked(*arguments: str | Path, cwd: Path, **environment: str) -> Iterator[Command]:
    """Start ``train.py``, ``embed.py`` or ``two-tower`` with these arguments; nothing of it is left afterwards."""
    command = Command(*arguments, cwd=cwd, environment=environment)
    try:
        yield command
    finally:
        command.kill_all()


def run_forked(*arguments: str | Path, cwd: Path, **environment: str) -> Ended:
    """Run a command to its end, see `forked`."""
    with forked(*arguments, cwd=cwd, **environment) as command:
        return command.ended()


def _read(stream: Connection) -> str:
    with os.fdopen(os.dup(stream.fileno()), "rb") as file:
        return file.read().decode()


def _run(arguments: list[str], cwd: str, environment: dict[str, str], out: Connection, err: Connection) -> None:
    """What the process does."""
    from two_tower import cli, embed, train

    multiprocessing.set_start_method("fork", force=True)  # the system's own, for the workers that load data
    os.setsid()
    os.chdir(cwd)
    for number, name, stream in ((1, "stdout", out), (2, "stderr", err)):
        os.dup2(stream.fileno(), number)
        stream.close()
        setattr(sys, name, os.fdopen(number, "w", buffering=1, closefd=False))  # the server's is a file
    if environment.get("SECOND_RANK") == "forked":
        arguments, environment = _rank(arguments, environment)
    os.environ.clear()
    os.environ.update(environment)
    program = arguments[0]
    sys.argv = [program if program == "two-tower" else str(ROOT / program), *arguments[1:]]
    main = {"train.py": train.main, "embed.py": embed.main, "two-tower": cli.main}[program]
    if "TORCHRUN" in environment:
        _torchrun(int(environment["TORCHRUN"]), main)
    else:
        main()


def _torchrun(ranks: int, main: Callable[[], None]) -> None:
    """What ``torchrun --standalone --nproc-per-node RANKS --max-restarts 1`` does, but that it forks the processes."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    rendezvous = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "run_id": str(os.getpid())}
    elastic_launch(
        LaunchConfig(1, 1, ranks, max_restarts=1, monitor_interval=0.1, start_method="fork", **rendezvous),
        _torchrun_rank,
    )(main)


def _torchrun_rank(main: Callable[[], None]) -> None:
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only.rank = int(os.environ["RANK"])  # Lightning asks the environment for it as it is imported
    main()


def _rank(arguments: list[str], environment: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Fork what Lightning would start as the second rank; in this it returns when, and with what, that is started."""
    from lightning.pytorch.strategies.launchers import subprocess_script
    from lightning.pytorch.utilities import rank_zero_only

    wait, order = FORKS.Pipe(duplex=False)
    if not (pid := os.fork()):
        order.close()
        command, environment = wait.recv()
        rank_zero_only.rank = 1  # Lightning asks the environment for it as it is imported
        return [Path(command[1]).name, *command[2:]], environment

    class Rank(subprocess.Popen[bytes]):
        def _execute_child(self, args: list[str], *rest: Any) -> None:  # noqa: ANN401
            order.send((args, rest[5]))
            self.pid, self._child_created = pid, True

    subprocess_script.subprocess = SimpleNamespace(Popen=Rank)  # type: ignore[attr-defined]
    return arguments, environment
