"""Calls in Python's form, ``[f(a=1), g(b="x")]``, read as BFCL's own decoder reads them, and never run.

Its oddities are kept, since its scores have them: arguments without a name are passed over, a missing bracket at either
end is forgiven, a name stands for itself as a text, and a sign before a number, whichever it is, turns it round.
"""

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rl.evaluation.suites.bfcl import Call

_MAX_POWER = 1000
"""The largest exponent that is reckoned with."""
_MAX_BITS = 100_000
"""The longest whole number that a power may come to: powers of powers are longer than any memory."""
_MAX_REPEATED = 10_000
"""The longest text or list that a product may come to."""
_WIDE = re.compile(r"\d{5}|\*")
"""In a text that is filled in, a width that is long or told by another value."""


def python_calls(text: str) -> Sequence[Call] | None:
    """The calls of a text; None where BFCL's decoder would find none."""
    text = text.strip("`\n ")
    text = text if text.startswith("[") else f"[{text}"
    text = text if text.endswith("]") else f"{text}]"
    try:
        parsed = ast.parse(text.strip().strip("'"), mode="eval").body
        return [_call(one) for one in parsed.elts] if isinstance(parsed, ast.List) else None
    except (SyntaxError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None


def _call(node: ast.expr) -> Call:
    """
    Raises:
        ValueError: it is no call.
    """
    if not isinstance(node, ast.Call):
        raise ValueError("not a call")
    return {_name(node.func): {str(word.arg): _value(word.value) for word in node.keywords}}


def _name(node: ast.expr) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id] if isinstance(node, ast.Name) else parts))


def _value(node: ast.expr | None) -> Any:
    """
    Raises:
        ValueError, TypeError, ArithmeticError: it is nothing that a call may hold.
    """
    match node:
        case ast.Constant(value=value):
            return "..." if value is Ellipsis else value
        case ast.UnaryOp(operand=ast.Constant(value=value)):
            return -value  # type: ignore[operator]
        case ast.List(elts=parts):
            return [_value(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_value(part) for part in parts)
        case ast.Dict(keys=keys, values=values):
            return {_value(key): _value(one) for key, one in zip(keys, values, strict=True)}
        case ast.BinOp():
            return _reckoned(node)
        case ast.Name(id=name):
            return name
        case ast.Call(keywords=[]):
            return ast.unparse(node)
        case ast.Call():
            return _call(node)
        case ast.Subscript():
            return ast.unparse(node)
    raise ValueError("not a value")


def _reckoned(node: ast.expr) -> Any:
    """What an expression of constants comes to in Python.

    Raises:
        ValueError, TypeError, ArithmeticError: it comes to nothing, or to too much.
    """
    match node:
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=sign, operand=operand):
            return _SIGNS[type(sign)](_reckoned(operand))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATIONS:
            return _OPERATIONS[type(sign)](_reckoned(left), _reckoned(right))
        case ast.List(elts=parts):
            return [_reckoned(part) for part in parts]
        case ast.Tuple(elts=parts):
            return tuple(_reckoned(part) for part in parts)
    raise ValueError("not an expression of constants")


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > _MAX_POWER:
        raise ValueError("the exponent is too large")
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * exponent > _MAX_BITS:
        raise ValueError("too long")
    return base**exponent


def _product(left: Any, right: Any) -> Any:
    for many, times in ((left, right), (right, left)):
        if (
            isinstance(many, str | bytes | list | tuple)
            and isinstance(times, int)
            and len(many) * times > _MAX_REPEATED
        ):
            raise ValueError("too long")
    return left * right


def _rest(left: Any, right: Any) -> Any:
    if isinstance(left, bytes) or (isinstance(left, str) and _WIDE.search(left)):
        raise ValueError("too long")
    return left % right


_OPERATIONS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _product,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: _rest,
    ast.Pow: _power,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}
_SIGNS: Mapping[type, Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
    ast.Invert: operator.invert,
}
