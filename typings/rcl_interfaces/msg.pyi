from collections.abc import Sequence

class FloatingPointRange:
    from_value: float
    to_value: float
    step: float
    def __init__(self, *, from_value: float = ..., to_value: float = ..., step: float = ...) -> None: ...

class IntegerRange:
    from_value: int
    to_value: int
    step: int
    def __init__(self, *, from_value: int = ..., to_value: int = ..., step: int = ...) -> None: ...

class ParameterDescriptor:
    name: str
    description: str
    read_only: bool
    dynamic_typing: bool
    floating_point_range: Sequence[FloatingPointRange]
    integer_range: Sequence[IntegerRange]
    def __init__(
        self, *, name: str = ..., description: str = ..., read_only: bool = ..., dynamic_typing: bool = ...
    ) -> None: ...

class SetParametersResult:
    successful: bool
    reason: str
    def __init__(self, *, successful: bool = ..., reason: str = ...) -> None: ...
