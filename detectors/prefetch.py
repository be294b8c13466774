"""Asking for memory before it is needed: a hint to the processor, which changes no value."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, overload

LINE = 64
"""Bytes of a cache line. Where it is another, the hint is worth less."""


def prefetch(array: Any, index: Any, skip: Any) -> None:
    """Ask for the line that holds the byte `skip` behind the start of `array[index]`, of an array (n,).

    Nothing is checked: a place that is not there is not asked for. Uncompiled code asks for nothing.
    """


@overload(prefetch)
def _prefetch(array: Any, index: Any, skip: Any) -> Any:
    if not isinstance(array, types.Array) or array.ndim != 1:
        return None

    def compiled(array: Any, index: Any, skip: Any) -> None:
        _ask(array, index, skip)

    return compiled


@intrinsic
def _ask(_: Any, array: Any, index: Any, skip: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        held = context.make_array(kind)(context, builder, arguments[0])
        place = cgutils.get_item_pointer(context, builder, kind, held, [arguments[1]], wraparound=False)
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        hint = builder.module.declare_intrinsic(
            "llvm.prefetch", (byte,), ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )
        read, keep, data = word(0), word(3), word(1)
        there = builder.gep(builder.bitcast(place, byte), [arguments[2]], source_etype=ir.IntType(8))
        builder.call(hint, [there, read, keep, data])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), code
