class Time:
    sec: int
    nanosec: int

class Duration:
    sec: int
    nanosec: int
