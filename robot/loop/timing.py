"""Times of the programs around the loop, s. How long a soft stop takes is the loop's own (`Times.soft_stop`)."""

ARM_EVERY = 1.0
"""Between two tries of the control loop to arm by itself: standing up takes longer, and every refusal is logged."""
SCORE_EVERY = 0.5
"""Between two messages of the live score: often enough to follow a course of 10 s."""
SAY_EVERY = 5.0
"""Between two lines of the referee's log."""
LOOK_EVERY = 0.02
"""Between two looks of a program that waits for another one, or for the end: a control period."""
DAMPED_WITHIN = 1.0
"""After readings or joint commands stopped: the longest patience with either in `launch/course.yaml` is 0.25 s."""
SOFT_STOP_SPARE = 1.5
"""Beyond the phases of a soft stop, for noticing that it is due, on a busy computer."""
ENDED_SPARE = 2.0
"""Beyond that for a process of the control loop to write its report and end."""
ENDED_WITHIN = 3.0
"""For any other process to end when it is told to."""
