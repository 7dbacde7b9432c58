"""Numbers with their sign, as the page's own scripts write them too."""


def signed(value: float, digits: int = 3) -> str:
    """A number with its sign; zero has none.

    >>> signed(-1.23456), signed(2.0, 1), signed(-0.0001)
    ('−1.235', '+2.0', '0.000')

    Args:
        value: the number.
        digits: how many follow the point.
    """
    text = f"{abs(value):.{digits}f}"
    if text.strip("0.") == "":
        return text
    return ("−" if value < 0 else "+") + text
