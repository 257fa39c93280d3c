"""One step of each recurrent cell and its derivative, for all texts of a block that are still running.

    rnn    h' = tanh(x + a)                      x, a: the cell's products with the word and with the state h,
    gru    r, z = σ(x + a)   n = tanh(x + r a)         biases included
           h' = n + z (h - n)
    lstm   i, f, o = σ(x + a)   g = tanh(x + a)
           c' = f c + i g   h' = o tanh(c')

Gates stand in torch's order (gru: r, z, n; lstm: i, f, g, o). The loops are short and without branches, so that the
compiler makes vector instructions of them: 0.5 ns a gate, where a library's exponential takes 5. They work in
place of the products, since a step that touches more memory than a core's cache holds takes three times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from torch import nn

from two_tower.tower._kernels import FAST

__all__ = ["CELLS", "Cell"]

_f = np.float32

# error_model: reporting a division by zero, as Python does, would forbid vector instructions.


@numba.njit(inline="always", fastmath=FAST, error_model="numpy")
def _tanh(x: Any) -> Any:  # noqa: ANN401
    """Within 3e-7 (a rational function, as in Eigen). NaN stays NaN: a diverged model must not look healthy."""
    x = _f(9) if x > _f(9) else x
    x = _f(-9) if x < _f(-9) else x
    s = x * x
    p = _f(2.00018790482477e-13) - _f(2.76076847742355e-16) * s
    p = _f(5.12229709037114e-08) + (_f(-8.60467152213735e-11) + p * s) * s
    p = _f(6.37261928875436e-04) + (_f(1.48572235717979e-05) + p * s) * s
    p = _f(4.89352455891786e-03) + p * s
    q = _f(1.18534705686654e-04) + _f(1.19825839466702e-06) * s
    q = _f(4.89352518554385e-03) + (_f(2.26843463243900e-03) + q * s) * s
    return x * p / q


@numba.njit(inline="always", fastmath=FAST, error_model="numpy")
def _sigmoid(x: Any) -> Any:  # noqa: ANN401
    return _f(0.5) + _f(0.5) * _tanh(_f(0.5) * x)


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _rnn_step(
    at: np.ndarray,
    shift: int,
    rows: np.ndarray,
    inputs: np.ndarray,
    bias: np.ndarray,
    gates: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    memory_before: np.ndarray,
    memory: np.ndarray,
    states: np.ndarray,
) -> None:
    for i in range(len(after)):
        k = at[i] + shift
        x, a, h, out = inputs[rows[k]], gates[i], after[i], states[k]
        for j in range(len(h)):
            h[j] = _tanh(x[j] + a[j] + bias[j])
        for j in range(len(h)):
            out[j] = h[j]


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _rnn_back(
    at: np.ndarray,
    shift: int,
    gates: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    memory_before: np.ndarray,
    memory: np.ndarray,
    grad_states: np.ndarray,
    grad_state: np.ndarray,
    grad_memory: np.ndarray,
    grad_inputs: np.ndarray,
    grad_product: np.ndarray,
    grad_bias: np.ndarray,
) -> None:
    for i in range(len(after)):
        k = at[i] + shift
        h, up, carry, da, dx = after[i], grad_states[k], grad_state[i], grad_product[i], grad_inputs[k]
        for j in range(len(h)):
            da[j] = (up[j] + carry[j]) * (_f(1) - h[j] * h[j])
            carry[j] = 0
        for j in range(len(da)):
            grad_bias[j] += da[j]
        for j in range(len(da)):
            dx[j] = da[j]


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _gru_step(
    at: np.ndarray,
    shift: int,
    rows: np.ndarray,
    inputs: np.ndarray,
    bias: np.ndarray,
    gates: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    memory_before: np.ndarray,
    memory: np.ndarray,
    states: np.ndarray,
) -> None:
    m = after.shape[1]
    for i in range(len(after)):
        k = at[i] + shift
        x, a, old, h, out, from_state = inputs[rows[k]], gates[i], before[i], after[i], states[k], memory[i]
        r, z, n, x_n, b_n = a[:m], a[m : 2 * m], a[2 * m :], x[2 * m :], bias[2 * m :]
        for j in range(2 * m):
            a[j] = _sigmoid(x[j] + a[j] + bias[j])
        for j in range(m):
            from_state[j] = n[j] + b_n[j]
        for j in range(m):
            n[j] = _tanh(x_n[j] + r[j] * from_state[j])
        for j in range(m):
            h[j] = n[j] + z[j] * (old[j] - n[j])
        for j in range(m):
            out[j] = h[j]


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _gru_back(
    at: np.ndarray,
    shift: int,
    gates: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    memory_before: np.ndarray,
    memory: np.ndarray,
    grad_states: np.ndarray,
    grad_state: np.ndarray,
    grad_memory: np.ndarray,
    grad_inputs: np.ndarray,
    grad_product: np.ndarray,
    grad_bias: np.ndarray,
) -> None:
    m = after.shape[1]
    for i in range(len(after)):
        k = at[i] + shift
        a, da, dx, old, from_state = gates[i], grad_product[i], grad_inputs[k], before[i], memory[i]
        up, dh = grad_states[k], grad_state[i]
        r, z, n, da_r, da_z, da_n = a[:m], a[m : 2 * m], a[2 * m :], da[:m], da[m : 2 * m], da[2 * m :]
        for j in range(m):
            dh[j] += up[j]
        for j in range(m):
            da_n[j] = dh[j] * (_f(1) - z[j]) * (_f(1) - n[j] * n[j])
        for j in range(m):
            da_z[j] = dh[j] * (old[j] - n[j]) * z[j] * (_f(1) - z[j])
        for j in range(m):
            da_r[j] = da_n[j] * from_state[j] * r[j] * (_f(1) - r[j])
        for j in range(3 * m):
            dx[j] = da[j]
        for j in range(m):
            da_n[j] *= r[j]
        for j in range(m):
            dh[j] *= z[j]
        for j in range(3 * m):
            grad_bias[j] += da[j]


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _lstm_step(
    at: np.ndarray,
    shift: int,
    rows: np.ndarray,
    inputs: np.ndarray,
    bias: np.ndarray,
    gates: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    memory_before: np.ndarray,
    memory: np.ndarray,
    states: np.ndarray,
) -> None:
    m = after.shape[1]
    for i in range(len(after)):
        k = at[i] + shift
        x, a, old, c, h, out = inputs[rows[k]], gates[i], memory_before[i], memory[i], after[i], states[k]
        g_i, g_f, g, g_o = a[:m], a[m : 2 * m], a[2 * m : 3 * m], a[3 * m :]
        x_g, b_g, x_o, b_o = x[2 * m : 3 * m], bias[2 * m : 3 * m], x[3 * m :], bias[3 * m :]
        for j in range(2 * m):
            a[j] = _sigmoid(x[j] + a[j] + bias[j])
        for j in range(m):
            g[j] = _tanh(x_g[j] + g[j] + b_g[j])
        for j in range(m):
            g_o[j] = _sigmoid(x_o[j] + g_o[j] + b_o[j])
        for j in range(m):
            c[j] = g_f[j] * old[j] + g_i[j] * g[j]
        for j in range(m):
            h[j] = g_o[j] * _tanh(c[j])
        for j in range(m):
            out[j] = h[j]


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _lstm_back(
    at: np.ndarray,
    shift: int,
    gates: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    memory_before: np.ndarray,
    memory: np.ndarray,
    grad_states: np.ndarray,
    grad_state: np.ndarray,
    grad_memory: np.ndarray,
    grad_inputs: np.ndarray,
    grad_product: np.ndarray,
    grad_bias: np.ndarray,
) -> None:
    m = after.shape[1]
    for i in range(len(after)):
        k = at[i] + shift
        a, da, dx, old, c = gates[i], grad_product[i], grad_inputs[k], memory_before[i], memory[i]
        g_i, g_f, g, g_o = a[:m], a[m : 2 * m], a[2 * m : 3 * m], a[3 * m :]
        da_i, da_f, da_g, da_o = da[:m], da[m : 2 * m], da[2 * m : 3 * m], da[3 * m :]
        up, dh, dc = grad_states[k], grad_state[i], grad_memory[i]
        for j in range(m):
            dh[j] += up[j]
        for j in range(m):
            t = _tanh(c[j])
            da_o[j] = dh[j] * t * g_o[j] * (_f(1) - g_o[j])
            dc[j] += dh[j] * g_o[j] * (_f(1) - t * t)
        for j in range(m):
            da_i[j] = dc[j] * g[j] * g_i[j] * (_f(1) - g_i[j])
        for j in range(m):
            da_f[j] = dc[j] * old[j] * g_f[j] * (_f(1) - g_f[j])
        for j in range(m):
            da_g[j] = dc[j] * g_i[j] * (_f(1) - g[j] * g[j])
        for j in range(m):
            dc[j] *= g_f[j]
            dh[j] = 0
        for j in range(4 * m):
            grad_bias[j] += da[j]
        for j in range(4 * m):
            dx[j] = da[j]


@dataclass(frozen=True)
class Cell:
    """A kind of recurrent cell with M state numbers a text.

    Attributes:
        library: torch's network of such cells, of the sizes of an input and of a state.
        gates: products with the input and with the state are ``gates * M`` numbers (G) each.
        step: from the states before a step to those after it.
        back: the derivative of ``step``.

    The arguments of ``step`` and ``back``, float32 where nothing else is said. Of the arrays with a row per text
    only the first n rows are in use: the texts that are still running. ``after`` has just these.

        at, shift         text i reads token ``at[i] + shift``; int64 and a number
        rows              (T,) integers, the row of ``inputs`` that belongs to each token
        inputs            (R, G) products with the words, input biases included
        bias              (G,) recurrent biases
        gates             (n, G) the products with ``before``; ``step`` puts the gates in their place
        before, after     (n, M) states; may be the same memory
        memory_before,    (n, M) lstm: the cell's memory, may be the same memory; gru: what comes of ``before`` in
        memory            n, kept for ``back``
        states            (T, M), written: the state after each token

    and the gradients: ``back`` reads grad_states (T, M), and in grad_state and grad_memory (n, M) what the later
    step left there; writes grad_inputs (T, G), a row for each token, and grad_product (n, G); adds to grad_bias;
    and leaves in grad_state and grad_memory what reaches the step before in other ways than through the product.
    """

    library: Callable[[int, int], nn.RNNBase]
    gates: int
    step: Callable[..., None]
    back: Callable[..., None]


CELLS = {
    "rnn": Cell(nn.RNN, 1, _rnn_step, _rnn_back),
    "gru": Cell(nn.GRU, 3, _gru_step, _gru_back),
    "lstm": Cell(nn.LSTM, 4, _lstm_step, _lstm_back),
}
