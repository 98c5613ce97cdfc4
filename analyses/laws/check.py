"""A check: a statement, and the numbers that decide whether this installation agrees with it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, SupportsFloat

__all__ = ["Check", "Number", "Result", "above", "below", "equal"]

WORDS = {"=": "{expected:.4g} ± {tolerance:.2g}", "<": "< {expected:.4g}", ">": "> {expected:.4g}"}


class Number(NamedTuple):
    """One measured number and what is demanded of it."""

    name: str
    value: float
    expected: float
    relation: str = "="
    """`=` within `tolerance`, `<` or `>`."""
    tolerance: float = 0.0
    """Largest difference allowed; 0 demands equality."""

    @property
    def agrees(self) -> bool:
        """Whether the demand is met; never for NaN."""
        if self.relation == "=":
            return abs(self.value - self.expected) <= self.tolerance
        return self.value < self.expected if self.relation == "<" else self.value > self.expected

    @property
    def demand(self) -> str:
        """The demand in words, as `0.634 ± 0.001` or `< 1e-12`."""
        if self.relation == "=" and self.tolerance == 0:
            return f"{self.expected:.4g}"
        return WORDS[self.relation].format(**self._asdict())


@dataclass(frozen=True)
class Result:
    """What one check has measured."""

    numbers: tuple[Number, ...]
    """At least one."""

    def __post_init__(self) -> None:
        if not self.numbers:
            raise ValueError("Result: a check without numbers cannot fail.")

    @property
    def agrees(self) -> bool:
        """Whether every number meets its demand."""
        return all(number.agrees for number in self.numbers)

    @property
    def value(self) -> str:
        """The measured numbers."""
        return ", ".join(f"{number.value:.4g}" for number in self.numbers)

    @property
    def expected(self) -> str:
        """What is demanded of them, in the same order; what is common to all is said once."""
        demands = [number.demand for number in self.numbers]
        alike = len(set(demands)) == 1
        if not alike and {n.relation for n in self.numbers} == {"="}:
            if len({n.tolerance for n in self.numbers}) == 1:
                values = ", ".join(f"{n.expected:.4g}" for n in self.numbers[:-1])
                return f"{values}, {demands[-1]}"
        return ", ".join(demands[:1] if alike else demands)

    @property
    def tolerance(self) -> float:
        """The largest difference that any of them is allowed, 0 for bounds alone."""
        return max(number.tolerance for number in self.numbers)

    @property
    def text(self) -> str:
        """One line for each number: its name, value, demand and, if it fails, that it does."""
        return "\n".join(
            f"{number.name}: {number.value:.6g}, expected {number.demand}"
            + ("" if number.agrees else "  DISAGREES")
            for number in self.numbers
        )


@dataclass(frozen=True)
class Check:
    """A law that this installation must obey."""

    id: str
    """As in the table of laws: T for oracles, L for quantitative laws."""
    statement: str
    """One line, as a sentence that can be false."""
    run: Callable[[], Result]
    """Measures it; no arguments, the same numbers at every call."""


def equal(
    name: str, value: SupportsFloat, expected: SupportsFloat, tolerance: float = 0.0
) -> Number:
    """A number that lies within `tolerance` of `expected`."""
    return Number(name, float(value), float(expected), "=", tolerance)


def below(name: str, value: SupportsFloat, bound: SupportsFloat) -> Number:
    """A number that lies below `bound`."""
    return Number(name, float(value), float(bound), "<")


def above(name: str, value: SupportsFloat, bound: SupportsFloat) -> Number:
    """A number that lies above `bound`."""
    return Number(name, float(value), float(bound), ">")
