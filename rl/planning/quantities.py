"""Large numbers and amounts of memory, as a plan writes them."""


def count(number: float) -> str:
    """A number with three digits and a letter for its thousands."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:g}"


def memory(number: float) -> str:
    """Bytes, in the largest unit of which there is one."""
    for unit, name in ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number / 2**10:.3g} KiB"
