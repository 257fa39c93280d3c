"""One step of each recurrent cell and its derivative, for all texts of a block that are still running.

    rnn    h' = tanh(x + a)                      x, a: the cell's products with the word and with the state h,
    gru    r, z = σ(x + a)   n = tanh(x + r a)         biases included
           h' = n + z (h - n)
    lstm   i, f, o = σ(x + a)   g = tanh(x + a)
           c' = f c + i g   h' = o tanh(c')

Gates stand in torch's order (gru: r, z, n; lstm: i, f, g, o). The derivatives use tanh' = 1 - tanh² and
σ' = σ (1 - σ); ``dv`` is the gradient of the loss with respect to v. The loops are short and without branches, so
that the compiler makes vector instructions of them: 0.5 ns a gate, where a library's exponential takes 5. They work
in place of the products, since a step that touches more memory than a core's cache holds takes three times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numba
import numpy as np
from torch import nn

from two_tower.tower._lookup import FAST

Array: TypeAlias = np.ndarray
# `Cell` explains the members of these.
Texts: TypeAlias = tuple[Array, int]  # at, shift
Inputs: TypeAlias = tuple[Array, Array, Array]  # rows, inputs, bias
Step: TypeAlias = tuple[Array, Array, Array, Array, Array]  # gates, before, after, memory_before, memory
# grad_states, grad_state, grad_memory, grad_inputs, grad_product, grad_bias
Grads: TypeAlias = tuple[Array, Array, Array, Array, Array, Array]

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
def _rnn_step(texts: Texts, products: Inputs, step: Step, states: Array) -> None:
    (at, shift), (rows, inputs, bias), (gates, _, after, _, _) = texts, products, step
    for i in range(len(after)):
        k = at[i] + shift
        x, a, h, out = inputs[rows[k]], gates[i], after[i], states[k]
        for j in range(len(h)):
            h[j] = _tanh(x[j] + a[j] + bias[j])
        for j in range(len(h)):
            out[j] = h[j]


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _rnn_back(texts: Texts, step: Step, grads: Grads) -> None:
    (at, shift), (_, _, after, _, _) = texts, step
    grad_states, grad_state, _, grad_inputs, grad_product, grad_bias = grads
    for i in range(len(after)):
        k = at[i] + shift
        h, up, carry, da, dx = after[i], grad_states[k], grad_state[i], grad_product[i], grad_inputs[k]
        for j in range(len(h)):  # da = dh (1 - h²)
            da[j] = (up[j] + carry[j]) * (_f(1) - h[j] * h[j])
            carry[j] = 0
        for j in range(len(da)):
            grad_bias[j] += da[j]
        for j in range(len(da)):  # x and a are summed in the cell, so dx = da
            dx[j] = da[j]


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _gru_step(texts: Texts, products: Inputs, step: Step, states: Array) -> None:
    (at, shift), (rows, inputs, bias), (gates, before, after, _, memory) = texts, products, step
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
def _gru_back(texts: Texts, step: Step, grads: Grads) -> None:
    (at, shift), (gates, before, after, _, memory) = texts, step
    grad_states, grad_state, _, grad_inputs, grad_product, grad_bias = grads
    m = after.shape[1]
    for i in range(len(after)):
        k = at[i] + shift
        a, da, dx, old, from_state = gates[i], grad_product[i], grad_inputs[k], before[i], memory[i]
        up, dh = grad_states[k], grad_state[i]
        r, z, n, da_r, da_z, da_n = a[:m], a[m : 2 * m], a[2 * m :], da[:m], da[m : 2 * m], da[2 * m :]
        for j in range(m):
            dh[j] += up[j]
        for j in range(m):  # dx_n = dh (1 - z) (1 - n²)
            da_n[j] = dh[j] * (_f(1) - z[j]) * (_f(1) - n[j] * n[j])
        for j in range(m):  # da_z = dh (h - n) z (1 - z)
            da_z[j] = dh[j] * (old[j] - n[j]) * z[j] * (_f(1) - z[j])
        for j in range(m):  # da_r = dx_n a_n r (1 - r)
            da_r[j] = da_n[j] * from_state[j] * r[j] * (_f(1) - r[j])
        for j in range(3 * m):  # up to here dx = da
            dx[j] = da[j]
        for j in range(m):  # da_n = dx_n r: the reset gate stands between
            da_n[j] *= r[j]
        for j in range(m):  # what reaches the old state through h' = n + z (h - n)
            dh[j] *= z[j]
        for j in range(3 * m):
            grad_bias[j] += da[j]


@numba.njit(nogil=True, cache=True, fastmath=FAST, error_model="numpy")
def _lstm_step(texts: Texts, products: Inputs, step: Step, states: Array) -> None:
    (at, shift), (rows, inputs, bias), (gates, _, after, memory_before, memory) = texts, products, step
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
def _lstm_back(texts: Texts, step: Step, grads: Grads) -> None:
    (at, shift), (gates, _, after, memory_before, memory) = texts, step
    grad_states, grad_state, grad_memory, grad_inputs, grad_product, grad_bias = grads
    m = after.shape[1]
    for i in range(len(after)):
        k = at[i] + shift
        a, da, dx, old, c = gates[i], grad_product[i], grad_inputs[k], memory_before[i], memory[i]
        g_i, g_f, g, g_o = a[:m], a[m : 2 * m], a[2 * m : 3 * m], a[3 * m :]
        da_i, da_f, da_g, da_o = da[:m], da[m : 2 * m], da[2 * m : 3 * m], da[3 * m :]
        up, dh, dc = grad_states[k], grad_state[i], grad_memory[i]
        for j in range(m):
            dh[j] += up[j]
        for j in range(m):  # da_o = dh tanh(c') o (1 - o),  dc' += dh o (1 - tanh²(c'))
            t = _tanh(c[j])
            da_o[j] = dh[j] * t * g_o[j] * (_f(1) - g_o[j])
            dc[j] += dh[j] * g_o[j] * (_f(1) - t * t)
        for j in range(m):  # da_i = dc' g i (1 - i)
            da_i[j] = dc[j] * g[j] * g_i[j] * (_f(1) - g_i[j])
        for j in range(m):  # da_f = dc' c f (1 - f)
            da_f[j] = dc[j] * old[j] * g_f[j] * (_f(1) - g_f[j])
        for j in range(m):  # da_g = dc' i (1 - g²)
            da_g[j] = dc[j] * g_i[j] * (_f(1) - g[j] * g[j])
        for j in range(m):  # dc = dc' f; the old state is reached through the products only
            dc[j] *= g_f[j]
            dh[j] = 0
        for j in range(4 * m):
            grad_bias[j] += da[j]
        for j in range(4 * m):  # x and a are summed in the cell, so dx = da
            dx[j] = da[j]


@dataclass(frozen=True)
class Cell:
    """A kind of recurrent cell whose state has M numbers, and whose products G = ``gates * M``.

    Arrays are float32 unless said otherwise. Of those with a row per text only the first n are in use: the texts that
    are still running. ``after`` has just these.

        at, shift        (b,) int64 and a number: text i reads token ``at[i] + shift``
        rows             (T,) integers, the row of ``inputs`` that belongs to each token
        inputs           (R, G) products with the words, input biases included
        bias             (G,) recurrent biases
        gates            (n, G) products with ``before``; ``step`` replaces them by the gates
        before, after    (n, M) states; may be the same memory
        memory_before,   (n, M) lstm: the cell's memory c and c'; may be the same memory
        memory           gru: ``memory`` keeps the product a in n for ``back``
        states           (T, M), written: the state after each token

    ``back`` reads grad_states (T, M), and in grad_state and grad_memory (n, M) what the later step left there. It
    writes grad_inputs (T, G), a row for each token, and grad_product (n, G), adds to grad_bias, and leaves in
    grad_state and grad_memory what reaches the earlier step other than through the product.
    """

    library: Callable[[int, int], nn.RNNBase]  # torch's network of such cells, given the sizes of input and state
    gates: int
    step: Callable[[Texts, Inputs, Step, Array], None]
    back: Callable[[Texts, Step, Grads], None]  # the derivative of ``step``

    def __reduce__(self) -> tuple[Any, ...]:  # a copy elsewhere uses the loops that are compiled there
        return _cell, (self.library.__name__.lower(),)


CELLS = {
    "rnn": Cell(nn.RNN, 1, _rnn_step, _rnn_back),
    "gru": Cell(nn.GRU, 3, _gru_step, _gru_back),
    "lstm": Cell(nn.LSTM, 4, _lstm_step, _lstm_back),
}


def _cell(name: str) -> Cell:
    return CELLS[name]
