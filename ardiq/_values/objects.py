"""Named tuples for web frameworks: Pydantic would make arrays of them, and this makes objects with their fields.
Pydantic is not imported unless you use it.
"""

import typing
from typing import Annotated, Any, NamedTuple, TypeVar

Class = TypeVar("Class", bound=type[Any])


def as_object(cls: Class) -> Class:
    """Make a named tuple an object in Pydantic models, `TypeAdapter`s and FastAPI annotations."""
    cls.__get_pydantic_core_schema__ = classmethod(lambda cls, _, handler: _schema(cls, Any, handler))
    generic = getattr(cls, "__class_getitem__", None)
    if generic is not None:

        def of(_: type[Any], value: Any) -> Any:
            alias = generic(value)
            # Pydantic treats a generic named tuple as an array unless an annotation says otherwise.
            return alias if alias.__parameters__ else Annotated[cls, _Of(cls, value)]

        cls.__class_getitem__ = classmethod(of)
    return cls


class _Of(NamedTuple):
    """Names the type of the value in a named tuple."""

    cls: type[Any]
    value: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return _schema(self.cls, self.value, handler)


def _schema(cls: type[Any], of: Any, handler: Any) -> Any:
    from pydantic_core import core_schema

    def to_fields(value: Any) -> Any:
        return dict(zip(cls._fields, value, strict=False)) if isinstance(value, list | tuple) else value

    def hint_of(hint: Any) -> Any:
        if not isinstance(hint, TypeVar) or of is Any:
            return hint
        return typing.Union[of, str]  # noqa: UP007 - the value of a task, or the text of what failed

    fields = {
        name: core_schema.typed_dict_field(
            handler.generate_schema(hint_of(hint)), required=name not in cls._field_defaults
        )
        for name, hint in typing.get_type_hints(cls, include_extras=True).items()
        if name in cls._fields
    }
    record = core_schema.typed_dict_schema(
        fields, cls_name=cls.__name__, metadata={"pydantic_js_updates": {"title": cls.__name__}}
    )
    return core_schema.chain_schema(
        [
            core_schema.no_info_before_validator_function(to_fields, record),
            core_schema.no_info_plain_validator_function(lambda found: cls(**found)),
        ],
        serialization=core_schema.plain_serializer_function_ser_schema(to_fields, return_schema=record),
    )
