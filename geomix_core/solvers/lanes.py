"""What numba lacks for loops that run in lanes: an exponential, a maximum, scratch memory, sums in float64.

Everything here is inlined into the compiled solvers. numba's cache does not notice a change in a file that a solver
imports: after an edit here, delete geomix_core/solvers/__pycache__.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

FAST = {"reassoc", "nsz", "contract", "arcp"}
"""Sums may be reordered; NaN and infinity keep their meaning."""
NO_NAN = FAST | {"nnan"}
"""Where the rows have been checked: lets maxima run in lanes."""

in_lanes = njit(fastmath=NO_NAN, nogil=True, cache=True, forceinline=True)
"""Compiles a loop whose sums may be reordered.

Into the solver that calls it, and not as a function of its own: of such a function numba has two machine codes, one in
the process that compiles, one in those that load its cache, and their sums differ in the last bits.
"""

BLOCK = 2048
"""Tokens at a time: two arrays of terms stay in the first-level cache."""
QUARTER = BLOCK // 4


def intrinsic_(typing: Callable[..., Any]) -> Any:
    """numba's intrinsic, which mypy takes for a function of what its typing takes."""
    return intrinsic(typing)


# 2^f on [−½, ½]: interpolated at Chebyshev nodes, whose conversion to powers rounds too much for float64; its series
# to degree 12 is as good there.
_FIT = np.polynomial.Chebyshev.interpolate(np.exp2, 6, domain=[-0.5, 0.5])
_P = tuple(np.float32(c) for c in _FIT.convert(kind=np.polynomial.Polynomial).coef)
_Q = tuple(math.log(2) ** n / math.factorial(n) for n in range(13))


@intrinsic_
def nearest(_context: Any, x: Any) -> Any:
    """The whole number nearest to x, as a float."""

    def generate(_c: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        return builder.call(builder.module.declare_intrinsic("llvm.rint", (kind,)), arguments)

    return x(x), generate


@intrinsic_
def times_power_of_two(_context: Any, x: Any, n: Any) -> Any:
    """x·2ⁿ for a whole number n given as a float, by adding to the exponent; both numbers must be normal."""
    bits, mantissa = (32, 23) if x == types.float32 else (64, 52)

    def generate(_c: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        whole = ir.IntType(bits)
        exponent = builder.shl(builder.fptosi(arguments[1], whole), ir.Constant(whole, mantissa))
        return builder.bitcast(builder.add(builder.bitcast(arguments[0], whole), exponent), arguments[0].type)

    return x(x, n), generate


@intrinsic_
def larger(_context: Any, a: Any, b: Any) -> Any:
    """max(a, b) of two numbers that are not NaN, said so that LLVM runs it in lanes."""

    def generate(_c: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        flags = ("nnan", "nsz")
        first, second = arguments
        return builder.select(builder.fcmp_ordered(">", first, second, flags=flags), first, second, flags=flags)

    return a(a, b), generate


@intrinsic_
def fused(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """a·b + c, rounded once where the processor can."""

    def generate(_c: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        fused = builder.module.declare_intrinsic("llvm.fmuladd", (kind,), ir.FunctionType(kind, [kind] * 3))
        return builder.call(fused, arguments)

    return a(a, b, c), generate


@intrinsic_
def scratch(_context: Any, like: Any) -> Any:
    """BLOCK numbers on the stack, of the type of `like`.

    LLVM knows that they overlap no row. Elsewhere in memory it checks, too widely, and where the check fails takes the
    loop without lanes, whose sums differ in the last bits: a row's answer would depend on where it lies.
    """

    def generate(context: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        return cgutils.alloca_once(builder, context.get_value_type(like), size=BLOCK)

    return types.CPointer(like)(like), generate


@intrinsic_
def float_of(_context: Any, bits: Any) -> Any:
    """The float32 that 32 bits write."""

    def generate(_c: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic_
def bits_of(_context: Any, x: Any) -> Any:
    """The 64 bits that write a float64."""

    def generate(_c: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), generate


@intrinsic_
def double_of(_context: Any, bits: Any) -> Any:
    """The float64 that 64 bits write."""

    def generate(_c: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), generate


def exp2(x: Any, scale: Any) -> Any:
    raise NotImplementedError  # compiled only


@overload(exp2, inline="always")
def exp2_compiled(x: Any, scale: Any) -> Callable[[Any, Any], Any]:
    """2^(x·scale), about 2⁻¹²⁵ (2⁻¹⁰²¹) for anything smaller; relative error 1e-7 (3e-16). No x may be too large.

    The product is never rounded: its error would grow with |x|.
    """
    if x == types.float32:
        least = np.float32(-125.0)
        p0, p1, p2, p3, p4, p5, p6 = _P

        def single(x: Any, scale: Any) -> Any:
            most = larger(x, least / scale)
            n = nearest(most * scale)
            f = fused(most, scale, -n)
            return times_power_of_two(p0 + f * (p1 + f * (p2 + f * (p3 + f * (p4 + f * (p5 + f * p6))))), n)

        return single
    q0, q1, q2, q3, q4, q5, q6, q7, q8, q9, q10, q11, q12 = _Q

    def double(x: Any, scale: Any) -> Any:
        most = larger(x, -1021.0 / scale)
        n = nearest(most * scale)
        f = fused(most, scale, -n)
        g = q6 + f * (q7 + f * (q8 + f * (q9 + f * (q10 + f * (q11 + f * q12)))))
        return times_power_of_two(q0 + f * (q1 + f * (q2 + f * (q3 + f * (q4 + f * (q5 + f * g))))), n)

    return double


@njit(fastmath=FAST, nogil=True, cache=True)
def extent(u, least, largest):
    """(the lowest and the highest of u, whether neither NaN nor +inf is among them); least: −inf of its dtype."""
    low = high = least
    sound = True
    for i in range(u.shape[0]):
        sound &= u[i] <= largest
        low, high = larger(-u[i], low), larger(u[i], high)
    return -low, high, sound


@in_lanes
def summed(terms, count):
    """Σ of the first terms in float64, of a whole BLOCK four by four: adding equal numbers so rounds nothing."""
    total = 0.0
    if count == BLOCK:
        for i in range(QUARTER):
            four = (terms[i] + terms[i + QUARTER]) + (terms[i + 2 * QUARTER] + terms[i + 3 * QUARTER])
            total += np.float64(four)
        return total
    for i in range(count):
        total += np.float64(terms[i])
    return total
