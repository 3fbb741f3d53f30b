"""What a task's function takes and returns: checks calls cheaply, knows the annotations."""

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = _Missing()
"""No annotation, or one that values cannot be converted to."""

_MOST_SHAPES = 1000


class Signature:
    """One function's parameters and annotations, looked up when first needed."""

    __slots__ = ("_fits", "_fn", "_hints", "_name", "_parameters", "_signature", "_wants_tuples")

    def __init__(self, name: str, fn: Callable[..., Any]) -> None:
        self._name = name
        self._fn = fn
        self._fits: set[Any] = set()
        self._signature: inspect.Signature | None = None
        self._hints: dict[str, Any] | None = None
        self._wants_tuples: bool | None = None

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Refuse a call that the function would refuse.

        Raises:
            TypeError: too many or too few arguments, or an unknown keyword.
        """
        # Whether a call fits depends on nothing but how many arguments and which keywords.
        shape = (len(args), *kwargs) if kwargs else len(args)
        if shape in self._fits:
            return
        try:
            self._inspected().bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"task {self._name!r}: {error}") from None
        if len(self._fits) < _MOST_SHAPES:
            self._fits.add(shape)

    @property
    def wants_tuples(self) -> bool:
        """Whether an annotation of a parameter names a tuple."""
        if self._wants_tuples is None:
            hints = self._resolved()
            self._wants_tuples = any(_mentions_tuple(hint) for name, hint in hints.items() if name != "return")
        return self._wants_tuples

    @property
    def returns(self) -> Any:
        """The annotation of the result, or `MISSING`."""
        return self._resolved().get("return", MISSING)

    def positional(self, count: int) -> Iterator[tuple[str, Any]]:
        """Name and annotation of each of the first `count` positional arguments."""
        names: list[str] = []
        rest = ""
        for parameter in self._inspected().parameters.values():
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
                names.append(parameter.name)
            elif parameter.kind is parameter.VAR_POSITIONAL:
                rest = parameter.name
        for i in range(count):
            name = names[i] if i < len(names) else rest
            yield name or f"{i + 1}", self._resolved().get(name, MISSING)

    def position(self, name: str) -> int | None:
        """Where a parameter is passed by position, from 0; None where it cannot be."""
        for at, parameter in enumerate(self._inspected().parameters.values()):
            if parameter.name == name:
                by_position = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
                return at if by_position else None
        return None

    def accepts(self, name: str) -> bool:
        """Whether a call can have an argument of that name."""
        parameters = self._inspected().parameters
        return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def hint(self, keyword: str) -> Any:
        """The annotation of a keyword argument, or `MISSING`."""
        parameters = self._inspected().parameters
        parameter = parameters.get(keyword)
        if parameter is None or parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            keyword = next((p.name for p in parameters.values() if p.kind is p.VAR_KEYWORD), "")
        return self._resolved().get(keyword, MISSING)

    def _inspected(self) -> inspect.Signature:
        if self._signature is None:
            try:
                self._signature = inspect.signature(self._fn)
            except ValueError:  # some builtins tell nothing about themselves
                self._signature = inspect.signature(_anything)
        return self._signature

    def _resolved(self) -> dict[str, Any]:
        if self._hints is None:
            self._hints = {name: hint for name, hint in _hints_of(self._fn).items() if _can_convert(hint)}
        return self._hints


def _anything(*args: Any, **kwargs: Any) -> None: ...


def _hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    target: Any = inspect.unwrap(fn)
    while hasattr(target, "func"):  # functools.partial
        target = target.func
    if not inspect.isroutine(target):
        target = type(target).__call__
    try:
        return typing.get_type_hints(target, include_extras=True)
    except Exception:
        # A name that exists for type checkers only: the others still count.
        hints = {}
        for name, hint in getattr(target, "__annotations__", {}).items():
            try:
                single = type("_", (), {"__annotations__": {name: hint}, "__module__": target.__module__})
                hints.update(typing.get_type_hints(single, include_extras=True))
            except Exception:
                continue
        return hints


def _can_convert(hint: Any) -> bool:
    if hint is Any or isinstance(hint, typing.TypeVar):
        return False
    try:
        msgspec.json.Decoder(hint)
    except Exception:
        return False
    return True


def _mentions_tuple(hint: Any) -> bool:
    if isinstance(hint, type) and issubclass(hint, tuple):
        return True
    origin = typing.get_origin(hint)
    return origin is tuple or any(_mentions_tuple(arg) for arg in typing.get_args(hint))
