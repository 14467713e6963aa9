"""What the paper's robot and the dogs did: the figures that evaluations are shown beside.

Source: arXiv 2305.14654, section VI. The robot's are over 71 runs on hardware (60 for the weave poles), the dogs' over
two small dogs that failed nothing. What is not there is not published: no time of an obstacle but the weave poles, no
median.
"""

from dataclasses import dataclass

SOURCE = "arXiv 2305.14654, section VI: 71 runs of its robot on hardware, two small dogs"


@dataclass(frozen=True)
class Published:
    """One figure of the paper's robot and of the dogs: as words, and as numbers where it can be drawn."""

    paper: str = ""
    dogs: str = ""
    paper_value: float | None = None
    """s for times, a share for rates."""
    dogs_value: float | None = None

    def words(self) -> list[tuple[str, str]]:
        """Who did what, where it is published."""
        return [(who, said) for who, said in (("paper", self.paper), ("dogs", self.dogs)) if said]


TIMES = {
    "weave poles": Published("9.27", "under 4", 9.27, 4.0),
    "whole course": Published("", "about 9", None, 9.0),
    "best": Published("20.4", "", 20.4, None),
}
"""Seconds. The poles are the robot's mean and a bound for the dogs."""
RATES = {
    "a frame": Published("100 %", "100 %", 1.0, 1.0),
    "jump": Published("38 %", "100 %", 0.38, 1.0),
    "all five obstacles": Published("35 %", "100 %", 0.35, 1.0),
    "falls": Published("8 %", "0 %", 0.08, 0.0),
    "mean score": Published("0.77", "1.0", 0.77, 1.0),
}
