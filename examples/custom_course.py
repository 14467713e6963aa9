"""A course of one's own: built in Python, written to YAML, read back, and run by the policy that ships.

    python examples/custom_course.py
    python examples/custom_course.py --distance 2.5 --file my_course.yaml
    barkour run --course my_course.yaml

Two tables with a broad jump between them: the shortest course that asks for a walk, a jump and a way onto a table.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from policies.evaluation.course_run import run
from policies.evaluation.options import CourseRunOptions
from sim.course import files
from sim.course.description import Board, BroadJump, Course, EndTable, Gate, StartTable, Table
from sim.errors import InputError


def jump_course(distance: float) -> Course:
    """A start table, a broad jump whose board lies `distance` behind the table's edge (m), an end table.

    Gates run across the course, 1 m wide. They are crossed from the first to the last, in the order of the obstacles;
    the route is planned from them.
    """
    edge = 1.0  # where the start table ends, m
    board = edge + distance
    end = board + 1.75

    def gate(x: float) -> Gate:
        return Gate((x, 0.5), (x, -0.5))

    return Course(
        name="jump",
        obstacles=(
            StartTable("start table", 1.0, (gate(edge + 0.4),), Table((0.5, 0.0))),
            BroadJump("jump", 4.0, (gate(board - 1.05), gate(board + 0.95)), Board((board, 0.0))),
            EndTable("end table", 1.0, (gate(end - 0.4),), Table((end, 0.0))),
        ),
        start=(0.5, 0.0, 0.0),
        area=(0.0, -1.5, end + 1.0, 1.5),
    )


def main() -> int:
    """Status 0 once the course was run, whatever its score; 2 where no course can be made of what was asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distance", type=float, default=3.0, help="from the start table's edge to the board, m")
    parser.add_argument("--policy", default="generalist", help="specialists, generalist or a bundle FILE.onnx")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--file", type=Path, help="where the course is written; nowhere that stays without it")
    parser.add_argument("--json", action="store_true", help="print the whole result as one JSON object")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as scratch:
            path = options.file or Path(scratch) / "jump.yaml"
            course = jump_course(options.distance)
            files.save(course, path)
            assert files.load(path) == course  # no digit is lost on the way
            result = run(CourseRunOptions(policy=options.policy, course=str(path), seed=options.seed))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(result.to_dict()))
    else:
        print(f"score {result['score']:.3f} in {result['time_s']:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
