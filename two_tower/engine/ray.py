"""Ray: workers on this machine or on many, to which Ray Data gives items as they are read."""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from two_tower.engine import _flow
from two_tower.engine.base import Engine, Item, Result, Work
from two_tower.errors import UserError, at_least

if TYPE_CHECKING:
    from two_tower.console import Advance

SECONDS = 5  # that a cluster has to answer


class RayEngine(Engine):
    """Works in ``workers`` processes, on as many machines as the cluster at ``address`` has.

    Without an address Ray starts here and ends with the work. What a lost worker or machine had in hand is done again
    by another. ``workers`` None is one for each GPU, or for each machine where there are none; each has ``cpus`` cores
    and ``gpus``, by default its part of what is there.
    """

    def __init__(
        self, address: str | None = None, workers: int | None = None, cpus: int | None = None, gpus: float | None = None
    ) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError('engine=ray needs its package: pip install -e ".[ray]"')
        at_least(1, workers=workers, cpus=cpus)
        at_least(0, gpus=gpus)
        self.address, self.workers, self.cpus, self.gpus = address, workers, cpus, gpus
        self._begun: Future[list[Any]] | None = None  # flows that are there already

    @contextmanager
    def ready(self, *modules: str) -> Iterator[None]:
        if self._begun is not None:
            yield
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        own = not ray.is_initialized()
        if own:
            self._knock()
        with ThreadPoolExecutor(1) as pool:
            self._begun = pool.submit(self._begin, own, modules)
            try:
                yield
            finally:
                self._begun.exception()  # it has ended, well or not
                self._begun = None
                if own:
                    ray.shutdown()

    def run(
        self, work: Work[Item, Result], items: Callable[[], Iterator[Item]], keep: Callable[[Result], object],
        progress: Advance | None = None,
    ) -> None:  # fmt: skip
        import ray

        with self.ready():
            assert self._begun is not None
            flow = self._begun.result().pop() if self._begun.result() else self._flow()
            try:
                flow.give.remote([ray.put(ray.cloudpickle.dumps(each)) for each in (items, work)])
                while (row := ray.get(flow.following.remote())) is not None:
                    answer: _flow.Answer = pickle.loads(row)
                    for record in answer.log:
                        logging.getLogger(record.name).handle(record)
                    if answer.error is not None:
                        raise answer.error
                    if answer.result is not None:
                        keep(answer.result)
                    if progress:
                        progress(answer.done)
            except ray.exceptions.RayError as error:
                raise UserError(f"Ray ended before the work was done ({_first(error)}): run it again.") from error
            finally:
                ray.kill(flow)

    def _begin(self, own: bool, modules: Sequence[str]) -> list[Any]:
        if own:
            self._connect()
        return [self._flow(modules)]

    def _connect(self) -> None:
        """Start Ray or reach it, in a way that it says nothing by itself."""
        import ray

        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if self.address is None:
            os.environ.update(_environment())  # which Ray's processes inherit
            os.environ.setdefault("RAY_worker_niceness", "0")  # not 15, which costs a fifth of a busy machine
            settings["include_dashboard"] = False
        warnings.filterwarnings("ignore", module=r"ray\.")
        ray._private.worker._worker_logs_enabled = False  # the only switch for what it says of lost machines
        try:
            ray.init(self.address or "local", **settings)
        except Exception as error:  # of many kinds
            raise self._unreachable(error) from error

    def _knock(self) -> None:
        """Refuse an address at which nobody listens; Ray itself would try for half a minute."""
        place = urlsplit(f"//{(self.address or '').rpartition('//')[2]}")
        if place.port:
            try:
                socket.create_connection((str(place.hostname), place.port), SECONDS).close()
            except OSError as error:
                raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> UserError:
        if self.address is None:
            return UserError(f"Ray cannot start here: {_first(error)}.")
        remedy = "start one of this version (ray start --head), or leave engine.address=null for one that is made here."
        return UserError(f"engine.address={self.address} is no Ray that answers ({_first(error)}): {remedy}")

    def _flow(self, modules: Sequence[str] = ()) -> Any:  # noqa: ANN401
        """A new `Flow` on the machine to which this process is connected: others may be lost, this one must not."""
        import ray

        pool = self._pool([node["Resources"] for node in ray.nodes() if node["Alive"]])
        here = {"ray.io/node-id": ray.get_runtime_context().get_node_id()}
        ray.cloudpickle.register_pickle_by_value(_flow)
        settings: dict[str, Any] = {"num_cpus": 0, "max_concurrency": pool["workers"] + 3, "label_selector": here}
        if self.address:
            settings["runtime_env"] = {"env_vars": _environment()}
        return ray.remote(**settings)(_flow.Flow).remote(os.getcwd(), modules, **pool)

    def _pool(self, machines: list[dict[str, float]]) -> dict[str, Any]:
        """How many workers, and what each has, given the resources of all machines."""
        with_gpus = [machine for machine in machines if machine.get("GPU")]
        gpus = min(1.0, len(with_gpus)) if self.gpus is None else self.gpus
        cores = [int(machine.get("CPU", 0)) for machine in (with_gpus if gpus else machines)]
        count = sum(machine["GPU"] // gpus for machine in with_gpus) if gpus else sum(map(bool, cores))
        workers = self.workers or max(1, int(count))
        fits = (each for each in range(max(cores, default=0), 0, -1) if sum(core // each for core in cores) >= workers)
        cpus = self.cpus or next(fits, 1)
        if cpus > max(cores, default=0) or gpus > max((machine["GPU"] for machine in with_gpus), default=0):
            wanted = f"engine.cpus={cpus}" + (f" and engine.gpus={gpus:g}" if gpus else "")
            raise UserError(f"No machine of Ray's has what a worker needs ({wanted}): choose less.")
        return {"workers": workers, "cpus": cpus, "gpus": gpus}


def _environment() -> dict[str, str]:
    """What a worker needs to know of this process: where code is, and its settings."""
    places = [str(Path(__file__).parents[2]), os.getcwd(), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    kept = {key: value for key, value in os.environ.items() if key.startswith(("TWO_TOWER_", "OMP_WAIT"))}
    return {**kept, "PYTHONPATH": os.pathsep.join(dict.fromkeys(filter(None, places)))}


def _first(error: Exception) -> str:
    """The first sentence of what Ray says."""
    return str(error).partition("\n")[0].partition(". ")[0].rstrip(".")
