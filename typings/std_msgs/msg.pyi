from builtin_interfaces.msg import Time

class Header:
    stamp: Time
    frame_id: str

class String:
    data: str
    def __init__(self, *, data: str = ...) -> None: ...

class Bool:
    data: bool
    def __init__(self, *, data: bool = ...) -> None: ...
