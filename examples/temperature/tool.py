"""A tool of one's own: a function with hints and a docstring."""

from executors.errors import ToolError
from executors.tool import tool


@tool(instant=True)
def to_fahrenheit(celsius: float) -> str:
    """Convert degrees Celsius to Fahrenheit.

    Args:
        celsius: the temperature.
    """
    if celsius < -273.15:
        raise ToolError(f"{celsius:g} is below absolute zero")
    return f"{celsius * 9 / 5 + 32:.1f}"
