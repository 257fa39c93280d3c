"""What the optimizers share: dense gradients step as in torch, sparse ones step only the rows they hold.

The library's pieces do not combine (AdamW refuses sparse gradients, SparseAdam refuses dense ones), and two optimizers
would switch off Lightning's automatic optimization; hence one optimizer that does both.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from two_tower.errors import UserError, one_of


class RowOptimizer(torch.optim.Optimizer):
    """Steps dense parameters and the touched rows of word tables; a subclass says how.

    In a group with ``word_table`` true (see `parameter_groups`) ``lr`` is multiplied by ``embedding_lr_scale`` and
    ``weight_decay`` is ``embedding_weight_decay``, unless the group has its own. Schedulers multiply all rates alike.
    """

    _moment: ClassVar[str]  # the second moment's key in a parameter's state
    _compiled: ClassVar[bool] = True  # tests switch it off to run on the CPU what other devices run

    def __init__(self, params: Iterable[Any], **options: Any) -> None:  # noqa: ANN401
        for name in ("lr", "embedding_lr_scale", "eps", "weight_decay", "embedding_weight_decay"):
            check_range(name, options[name])
        super().__init__(params, options)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if param_group.setdefault("word_table", False):
            param_group.setdefault("lr", self.defaults["lr"] * self.defaults["embedding_lr_scale"])
            param_group.setdefault("weight_decay", self.defaults["embedding_weight_decay"])
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401
        """Step every parameter that has a gradient; returns what ``closure`` (called first) returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            dense = [param for param in group["params"] if param.grad is not None and not self._stepped(param, group)]
            if dense:
                self._step_dense(dense, group)
        return loss

    def _stepped(self, param: Tensor, group: dict[str, Any]) -> bool:
        """Step the rows of a word table; False for a parameter that is to step as a dense one."""
        grad = param.grad
        assert grad is not None
        if not self.state[param]:
            row_wise = group["row_wise"] and (group["word_table"] or grad.is_sparse)
            self.state[param].update(self._new_state(param, group, row_wise))
        if grad.is_sparse:
            grad = coalesced(grad)
            rows, values = grad.indices()[0], grad.values()
        elif self.state[param][self._moment].shape != param.shape:  # row-wise: every row is touched
            rows, values = torch.arange(len(param), device=param.device), grad
        else:
            return False
        self.state[param]["step"] += 1
        self._step_rows(param, rows, values, group)
        return True

    @abstractmethod
    def _new_state(self, param: Tensor, group: dict[str, Any], row_wise: bool) -> dict[str, Tensor]:
        """The state before the first step; see `new_moment` for ``row_wise``."""

    @abstractmethod
    def _step_dense(self, params: list[Tensor], group: dict[str, Any]) -> None:
        """Step parameters with dense gradients, all of one group."""

    @abstractmethod
    def _step_rows(self, param: Tensor, rows: Tensor, values: Tensor, group: dict[str, Any]) -> None:
        """Step the rows ``rows`` (R,) int64, distinct, by the gradients ``values`` (R, …)."""

    def _run(
        self, compiled: Callable[..., None], plain: Callable[..., None],
        rows: Tensor, values: Tensor, tables: tuple[Tensor, ...], scalars: tuple[float, ...],
    ) -> None:  # fmt: skip
        """Call ``compiled`` on NumPy arrays where it can take and change them in place, else ``plain`` on the tensors.

        For ``compiled`` every table is (V, D) or (V, 1) and the numbers have its precision. It runs on one thread: the
        work is bound by memory (40,000 rows of 256 in a table of 400,000: 18 ms for Adam, row-wise 13), and a second
        thread gained nothing on an idle machine and lost a factor of 2 on a busy one.
        """
        dtype, both = values.dtype, (values, *tables)
        arrays_fit = all(t.dtype == dtype and t.device.type == "cpu" and t.is_contiguous() for t in both)
        if not (self._compiled and arrays_fit and dtype in (torch.float32, torch.float64)):
            plain(rows, values, tables, scalars)
            return
        grads, *arrays = [t.detach().unsqueeze(-1).flatten(1).numpy() for t in both]
        compiled(rows.numpy(), grads, tuple(arrays), tuple(map(grads.dtype.type, scalars)))


def check_range(name: str, value: float, below: float = math.inf) -> None:
    """Raise a ValueError unless ``0 <= value < below``."""
    if not 0 <= value < below:
        limit = "" if below == math.inf else f" and below {below:g}"
        raise ValueError(f"{name}={value} must be at least 0{limit}")


def coalesced(grad: Tensor) -> Tensor:
    """A sparse gradient with each row once, itself if it is so already.

    Autograd drops the mark "coalesced" whenever it stores or sums gradients, although rows that came
    sorted are still sorted and distinct. Looking takes 0.3 ms for 40,000 rows of 256, coalescing 30–140.
    """
    if grad.sparse_dim() != 1:
        raise ValueError(f"sparse gradients must be sparse in the first dimension only, not in {grad.sparse_dim()}")
    if grad.is_coalesced():
        return grad
    if bool((grad._indices()[0].diff() > 0).all()):
        return grad._coalesced_(True)
    return grad.coalesce()


def fusible(params: Sequence[Tensor]) -> bool:
    """Whether torch's fused CPU kernels can step these: a tenth of the time for 30,000 x 256.

    They read gradients as if these had the parameter's strides, without a check, hence the conditions.
    """
    both = [t for p in params for t in (p, p.grad)]
    return all(t is not None and t.device.type == "cpu" and t.is_contiguous() for t in both)


def new_moment(param: Tensor, row_wise: bool, value: float = 0.0) -> Tensor:
    """A second moment of ``param``, all ``value``: of its shape, or (V, 1, …) if ``row_wise``."""
    if row_wise:
        return param.new_full((len(param),) + (1,) * (param.dim() - 1), value)
    # Zeros come from the system untouched, so a table's memory is only taken as its rows are used.
    return torch.zeros_like(param) if value == 0 else torch.full_like(param, value)


def by_row(squares: Tensor, moment: Tensor) -> Tensor:
    """``squares`` (R, …), averaged per row where ``moment`` has one number per row."""
    if moment.shape[1:] == squares.shape[1:]:
        return squares
    return squares.mean(dim=tuple(range(1, squares.dim())), keepdim=True)


def parameter_groups(modules: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
    """Groups ``{"name": "query/words", "params": [...], "word_table": True}`` (or ``"query/dense"``, False).

    What several of the named ``modules`` hold is in ``"shared/…"``. Frozen parameters are in a group too: they may be
    unfrozen later, and an optimizer skips them as long as they have no gradient.
    """
    owners: dict[nn.Parameter, list[str]] = {}
    for name, module in modules.items():
        for parameter in module.parameters():
            owners.setdefault(parameter, []).append(name)
    groups: dict[str, dict[str, Any]] = {}
    for parameter, names in owners.items():
        word_table = bool(getattr(parameter, "is_word_table", False))
        owner = names[0] if len(names) == 1 else "shared"
        name = f"{owner}/{'words' if word_table else 'dense'}"
        groups.setdefault(name, {"name": name, "params": [], "word_table": word_table})["params"].append(parameter)
    return list(groups.values())


def learning_rate(groups: Sequence[Mapping[str, Any]]) -> float:
    """The present learning rate of dense parameters, from an optimizer's groups (at least one)."""
    group = min(groups, key=lambda each: bool(each.get("word_table")))  # the first one that is no word table
    scale = group.get("embedding_lr_scale", 1.0) if group.get("word_table") else 1.0
    return float(group["lr"] / (scale or 1.0))


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], max_value: float, algorithm: str = "norm") -> Tensor:
    """Bound the gradients in place, sparse ones too, on which torch's own clipping fails.

    Algorithm ``norm`` scales all by one factor to a norm of at most ``max_value``, ``value`` limits each number. Sparse
    gradients are replaced by their coalesced form (else a row's parts would count one by one). Returns the Euclidean
    norm before clipping, 0 without gradients. If it is not finite, ``norm`` leaves the gradients as they are: scaling
    would turn all of them into NaN or 0 and hide where the infinite one came from.
    """
    if not max_value > 0:
        raise UserError(f"trainer.gradient_clip_val is {max_value}: set a number above 0, or null not to clip.")
    if algorithm not in ("norm", "value"):
        valid = one_of(str(algorithm), ["norm", "value"])
        raise UserError(f"trainer.gradient_clip_algorithm={algorithm!s} does not exist; {valid}.")
    grads = [_numbers(p) for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads)
    if algorithm == "value":
        for grad in grads:
            grad.clamp_(-max_value, max_value)
        return norm
    # 1e-6 as in torch; everything stays on the device, so a GPU is not waited for.
    scale = torch.where(norm.isfinite(), (max_value / (norm + 1e-6)).clamp(max=1.0), 1.0)
    for grad in grads:
        grad.mul_(scale.to(grad.device))
    return norm


def _numbers(parameter: Tensor) -> Tensor:
    """The gradient, or the numbers of a sparse one; changes to them in place are changes to the gradient."""
    if parameter.grad is None or not parameter.grad.is_sparse:
        return parameter.grad  # type: ignore[return-value]
    parameter.grad = coalesced(parameter.grad)
    return parameter.grad.values()
