"""`python -m robot.nodes NODE [--ros-args ...]`: what launch files start."""

import sys

from robot.nodes.surroundings import check_surroundings
from sim.errors import InputError
from sim.results import printable


def main() -> int:
    """Returns the exit status, see `robot.nodes.programs.main`."""
    try:
        check_surroundings()
    except InputError as error:
        print(printable(f"barkour: {error}"), file=sys.stderr)
        return 2
    from robot.nodes.programs import main

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
