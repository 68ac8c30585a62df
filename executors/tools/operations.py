"""FuncQA's thirteen operations, each a tool of its own, at full precision: only what is shown is rounded.

They are the calculator's functions. A tool gets numbers and never an expression, so there is nothing to parse.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from executors.arithmetic import FUNCTIONS, apply, written
from executors.errors import ToolError
from executors.tool import Tool
from executors.types import ToolSpec

OPERATIONS = (
    "add",
    "subtract",
    "multiply",
    "divide",
    "power",
    "sqrt",
    "log",
    "ln",
    "choose",
    "permutate",
    "gcd",
    "lcm",
    "remainder",
)
"""In the order of the published tool numbers; GSM8K-XL takes the first four."""

_ABOUT = {
    "add": "Add numbers.",
    "subtract": "Subtract from the first number all that follow.",
    "multiply": "Multiply numbers.",
    "divide": "Divide the first number by all that follow.",
    "power": "Raise the first number to the power of the second.",
    "sqrt": "The square root of a number.",
    "log": "The logarithm of a number to base 10, or to the base that follows it.",
    "ln": "The natural logarithm of a number.",
    "choose": "In how many ways the second number of things can be chosen from the first.",
    "permutate": "In how many orders the second number of things can be taken from the first.",
    "gcd": "The greatest common divisor of whole numbers.",
    "lcm": "The least common multiple of whole numbers.",
    "remainder": "What is left when the first number is divided by the second.",
}


def operation_tools(names: Iterable[str] = OPERATIONS) -> list[Tool]:
    """Tools of the named operations; each takes a list of numbers.

    Raises:
        KeyError: a name that is no operation.
    """
    return [Tool(_spec(name), Operation(name), instant=True) for name in names]


@dataclass(frozen=True, slots=True)
class Operation:
    """What runs behind one of the tools."""

    name: str

    def __call__(self, /, numbers: list[float]) -> str:
        """The result of the operation, to 12 significant digits.

        Raises:
            ToolError: it has none for these numbers.
        """
        return written(self.value(numbers))

    def value(self, numbers: Iterable[int | float | Fraction]) -> int | Fraction:
        """The exact result, or one of 28 digits where it is not rational; a decimal is what it is written as.

        Raises:
            ToolError: it has none for these numbers.
        """
        exact = [_exact(number) for number in numbers]
        try:
            return apply(self.name, *exact)
        except (ArithmeticError, ValueError) as error:
            shown = ", ".join(map(written, exact))
            raise ToolError(f"cannot calculate {self.name}({shown}): {error}") from error


def _exact(number: int | float | Fraction) -> int | Fraction:
    if isinstance(number, int):
        return number
    exact = number if isinstance(number, Fraction) else Fraction(repr(number))
    return exact.numerator if exact.denominator == 1 else exact


def _spec(name: str) -> ToolSpec:
    function = FUNCTIONS[name]
    numbers = {"type": "array", "items": {"type": "number"}, "minItems": function.fewest}
    if function.most is not None:
        numbers["maxItems"] = function.most
    parameters = {
        "type": "object",
        "properties": {"numbers": numbers},
        "required": ["numbers"],
        "additionalProperties": False,
    }
    return ToolSpec(name, _ABOUT[name], parameters)
