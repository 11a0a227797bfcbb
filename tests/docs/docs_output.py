"""Comparing what a page shows with what a command prints, without its times and its last digits."""

import re

_DECIMAL = r"(?<![\w.])-?\d+\.\d+(?:e-?\d+)?(?![\w.])"
_PIECE = re.compile(rf"(?P<any>\.\.\.)|(?P<number>{_DECIMAL})")


def difference(shown: str, printed: str) -> str | None:
    """What is wrong with the shown output, or `None`.

    Runs of blanks and of rules count as one, empty lines as none. `...` stands for anything, alone on a line
    for any lines. Decimal numbers may differ as `_alike` says; all else is compared to the character.
    """
    expected, found = _squeezed(shown), _squeezed(printed)
    pattern, numbers = _pattern(expected)
    match = re.fullmatch(pattern, found, re.DOTALL)
    if match is None:
        return f"shown:\n{shown}\nprinted:\n{printed}"
    pairs = zip(numbers, match.groups(), strict=True)
    wrong = [
        f"{one} is shown, {other} is printed"
        for (one, after), other in pairs
        if not _alike(one, other, after)
    ]
    return "\n".join(wrong) or None


def _squeezed(text: str) -> str:
    lines = (re.sub(r"─+", "─", " ".join(line.split())) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def _pattern(expected: str) -> tuple[str, list[tuple[str, str]]]:
    """A regular expression with a group for each decimal number, and the numbers with what follows each."""
    pieces, numbers, end = [], [], 0
    for piece in _PIECE.finditer(expected):
        pieces.append(re.escape(expected[end : piece.start()]))
        if piece["any"]:
            pieces.append(".*?")
        else:
            pieces.append(f"({_DECIMAL})")
            numbers.append((piece[0], expected[piece.end() :].partition("\n")[0][:3]))
        end = piece.end()
    return "".join([*pieces, re.escape(expected[end:])]), numbers


def _alike(shown: str, printed: str, after: str) -> bool:
    """Times differ freely; shares with one decimal by that decimal; others, accuracies say, by a tenth."""
    one, other = float(shown), float(printed)
    one_decimal = re.fullmatch(r"\d+\.\d", shown) is not None
    if one_decimal and (after == "" or re.match(r" s\b", after)):
        return True
    if one_decimal and after.startswith(" %"):
        return abs(one - other) < 0.11
    return abs(one - other) <= 0.1 * max(abs(one), abs(other))
