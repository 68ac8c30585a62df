"""Arithmetic on a whitelisted syntax tree: exact, bounded, and safe on anything that a policy may write."""

import ast
import math
import operator
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction

from executors.errors import ToolError
from executors.tool import tool

MAX_CHARS = 500
MAX_DIGITS = 60
MAX_EXPONENT = 256

_BINARY: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@tool(instant=True)
def calculator(expression: str) -> str:
    """Evaluate arithmetic: numbers, + - * / ^ and parentheses.

    Args:
        expression: such as 12.5*(3+4).
    """
    text = expression.replace(",", "").replace("^", "**").strip()
    if not text:
        raise ToolError("cannot evaluate an empty expression")
    if len(text) > MAX_CHARS:
        raise ToolError(f"cannot evaluate {len(text)} characters; the limit is {MAX_CHARS}")
    try:
        return written(_evaluate(ast.parse(text, mode="eval").body))
    except SyntaxError as error:
        raise ToolError(f"cannot evaluate {expression!r}: it is not an arithmetic expression") from error
    except (ArithmeticError, ValueError, RecursionError, MemoryError) as error:
        raise ToolError(f"cannot evaluate {expression!r}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    return "division by zero" if isinstance(error, ZeroDivisionError) else str(error) or type(error).__name__


def _evaluate(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=bool() | complex()):
            raise ValueError("only numbers can be calculated with")
        case ast.Constant(value=int(value)):
            return _bounded(Fraction(value))
        case ast.Constant(value=float(value)):
            return _bounded(Fraction(repr(value))) if math.isfinite(value) else _too_large()
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _evaluate(operand)
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            return _power(_evaluate(left), _evaluate(right))
        case ast.BinOp(op=op, left=left, right=right) if type(op) in _BINARY:
            return _bounded(_BINARY[type(op)](_evaluate(left), _evaluate(right)))
        case _:
            raise ValueError(f"{_described(node)} is not allowed; use numbers, + - * / ^ and parentheses")


def _described(node: ast.expr) -> str:
    text = ast.unparse(node)
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if abs(exponent) > MAX_EXPONENT:
        raise ValueError(f"the exponent is over {MAX_EXPONENT}")
    if exponent.denominator == 1:
        if max(len(str(abs(base.numerator))), len(str(base.denominator))) * abs(exponent.numerator) > 4 * MAX_DIGITS:
            _too_large()
        return _bounded(base**exponent.numerator)
    root = float(base) ** float(exponent)
    if isinstance(root, complex):
        raise ValueError("the result is not a real number")
    return Fraction(repr(root))


def _bounded(value: Fraction) -> Fraction:
    if abs(value) >= 10**MAX_DIGITS or value.denominator >= 10 ** (4 * MAX_DIGITS):
        _too_large()
    return value


def _too_large() -> Fraction:
    raise ValueError(f"the result has more than {MAX_DIGITS} digits")


def written(value: Fraction) -> str:
    """A number as people write it: whole where it is whole, else 12 significant digits, never in powers of ten."""
    if value.denominator == 1:
        return str(value.numerator)
    decimal = Decimal(value.numerator) / Decimal(value.denominator)
    text = f"{decimal:.12g}"
    if "e" in text or "E" in text:
        text = f"{Decimal(text):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
