"""Looking up a name in a registry, with errors that say what could have been written."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def nearest(name: object, choices: Iterable[str]) -> str:
    """A hint " Did you mean 'x'?" for the closest of `choices`, or nothing.

    >>> nearest("digit", ["digits", "mixture"])
    " Did you mean 'digits'?"
    """
    close = difflib.get_close_matches(str(name), list(choices), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def lookup(kind: str, name: str, registry: Mapping[str, T]) -> T:
    """The entry called `name`; ValueError lists the choices and the nearest one."""
    if name not in registry:
        choices = ", ".join(registry)
        raise ValueError(
            f"Unknown {kind} {name!r}: choose from {choices}.{nearest(name, registry)}"
        )
    return registry[name]


def check_options(
    owner: str, function: Callable[..., Any], options: Mapping[str, Any], given: Iterable[str] = ()
) -> None:
    """ValueError if `function` cannot be called with `options` beside the arguments `given`."""
    parameters = inspect.signature(function).parameters
    allowed = {name: p for name, p in parameters.items() if name not in set(given)}
    listed = ", ".join(allowed) or "none"
    for option in options:
        if option not in allowed:
            hint = nearest(option, allowed)
            raise ValueError(f"{owner} has no option {option!r}: allowed are {listed}.{hint}")
    for name, parameter in allowed.items():
        if parameter.default is parameter.empty and name not in options:
            raise ValueError(f"{owner} needs the option {name!r}: its options are {listed}.")


def require(condition: bool, owner: str, option: str, value: object, allowed: str) -> None:
    """ValueError naming the option, its value and what is allowed, unless `condition` holds."""
    if not condition:
        raise ValueError(f"{owner}: `{option}` must be {allowed}, got {value!r}.")


def is_int(value: object, at_least: int) -> bool:
    """Whether `value` is a whole number (True is not one) and not below `at_least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= at_least
