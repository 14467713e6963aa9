"""As the package."""

from typing import Any

def gather_object(object: Any) -> list[Any]: ...
