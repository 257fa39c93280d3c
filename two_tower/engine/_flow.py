"""What runs in Ray's processes: one lets Ray Data read items and give them to workers, who do them.

It is sent there as it stands, and imports this package only in workers: those who hand it on need not have it.
"""

from __future__ import annotations

import importlib
import logging
import os
import pickle
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from two_tower.engine.base import Work

TRIES = 5  # of an item: its worker may end with its machine, but also because the item is too large
_HANDED_ON = -1  # in place of an item's number: an answer of who reads them


@dataclass
class Answer:
    """What comes back: the result of an item, or the error that ends all."""

    result: Any = None
    error: Exception | None = None
    done: int = 0  # that a progress bar counts
    log: list[logging.LogRecord] = field(default_factory=list)


class Flow:
    """In a process of Ray's: lets items be read and workers do them, and collects the answers.

    Both start at once, and wait until they are told what to read and to do.
    """

    def __init__(self, folder: str, modules: Sequence[str], workers: int, cpus: int, gpus: float) -> None:
        import ray
        from ray.data import ActorPoolStrategy, DataContext, read_datasource

        self._begun, self._refs, self._given = Counter[int](), list[Any](), Event()
        context = DataContext.get_current()
        context.target_max_block_size = 1  # no two items in one block
        context.enable_progress_bars = False
        me = ray.get_runtime_context().current_actor
        data = read_datasource(_source(me, folder), num_cpus=0, override_num_blocks=1)
        answers = data.map_batches(
            _Worker, batch_size=None, batch_format="pyarrow", num_cpus=cpus, num_gpus=gpus or None,
            compute=ActorPoolStrategy(size=workers), fn_constructor_args=(me, folder, modules, cpus, bool(gpus)),
        )  # fmt: skip
        self._answers = iter(answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        self._first: Future[Any] | None = ThreadPoolExecutor(1).submit(next, self._answers, None)

    def give(self, refs: list[Any]) -> None:
        """Tell what to read and to do."""
        self._refs = refs
        self._given.set()

    def given(self) -> list[Any]:
        """What `give` was told, as soon as it is."""
        self._given.wait()
        return self._refs

    def begin(self, number: int) -> int:
        """Note that a worker begins with an item; returns how often that has happened."""
        self._begun[number] += 1
        return self._begun[number]

    def following(self) -> bytes | None:
        """The next answer, pickled; None after the last."""
        first, self._first = self._first, None
        block = next(self._answers, None) if first is None else first.result()
        return None if block is None else block["content"][0].as_py()


def _source(flow: Any, folder: str) -> Any:  # noqa: ANN401
    """Items as Ray Data reads them: one stream, on the machine of the caller, a block for each."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class Items(Datasource):
        supports_distributed_reads = False

        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:  # noqa: ANN401
            return [ReadTask(lambda: _read(flow, folder), BlockMetadata(None, None, None, None))]

    return Items()


def _read(flow: Any, folder: str) -> Iterator[pa.Table]:  # noqa: ANN401
    with _listening(folder) as said:
        try:
            for number, item in enumerate(_received(flow, 0)()):
                yield _block(number, item)
            yield _block(_HANDED_ON, Answer(log=said))
        except Exception as error:
            yield _block(_HANDED_ON, Answer(error=_told(error), log=said))


class _Worker:
    """In a process of Ray's: does the items that it is given."""

    def __init__(self, flow: Any, folder: str, modules: Sequence[str], threads: int, on_gpu: bool) -> None:  # noqa: ANN401
        self._flow, self._folder, self._threads, self._on_gpu = flow, folder, threads, on_gpu
        self._work: Work | None = None
        for module in modules:
            with suppress(ImportError):  # which is told when there is work
                importlib.import_module(module)

    def __call__(self, block: pa.Table) -> pa.Table:
        number = block["number"][0].as_py()
        return block if number == _HANDED_ON else _block(number, self._answer(number, block["content"][0]))

    def _answer(self, number: int, content: pa.Scalar) -> Answer:
        import ray

        done = list[int]()
        with _listening(self._folder) as said:
            try:
                if ray.get(self._flow.begin.remote(number)) > TRIES:
                    from two_tower.errors import UserError

                    lost = f"{TRIES} workers have ended with the same part of the data in hand"
                    raise UserError(f"{lost}, for lack of memory perhaps: choose smaller shards or fewer workers.")
                work = self._work = self._work or self._made()
                result = work(pickle.loads(content.as_buffer()), done.append)()
                return Answer(result, None, sum(done), said)
            except Exception as error:
                return Answer(error=_told(error), log=said)

    def _made(self) -> Work:
        import torch

        torch.set_num_threads(self._threads)
        work: Work = _received(self._flow, 1)
        if self._on_gpu:
            work.to("cuda")
        return work


def _received(flow: Any, which: int) -> Any:  # noqa: ANN401
    """One of the things that the flow was given."""
    import ray

    return pickle.loads(ray.get(ray.get(flow.given.remote())[which]))


class _Log(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def _listening(folder: str) -> Iterator[list[logging.LogRecord]]:
    """Work in the folder of the command, and keep what is logged, for the command to show."""
    with suppress(OSError):  # of another machine, where paths must be absolute
        os.chdir(folder)
    handler, logger = _Log(), logging.getLogger("two_tower")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield handler.records
    finally:
        logger.removeHandler(handler)


def _told(error: Exception) -> Exception:
    """The error as it can travel; a bug with where it is."""
    from two_tower.errors import UserError

    where = traceback.format_exc()
    try:
        if not isinstance(error, UserError):
            error.add_note(where)
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(where)


def _block(number: int, content: object) -> pa.Table:
    from ray import cloudpickle

    return pa.table({"number": [number], "content": pa.array([cloudpickle.dumps(content)], pa.large_binary())})
