"""`python -m robot.nodes NODE [--ros-args ...]`: what launch files start."""

import os
import signal
import sys

from sim.signals import polite


def leave(*_: object) -> None:
    """Ends the process at once: it is asked to while nothing is at work that could be lost."""
    try:
        os.write(2, b"barkour: interrupted\n")
    finally:
        os._exit(130)


def main() -> int:
    """Returns the exit status, see `robot.nodes.programs.main`."""
    for kind in polite():  # until the program itself listens: Python's own handlers would make a traceback of Ctrl-C
        signal.signal(kind, leave)
    from robot.nodes.surroundings import check_surroundings
    from sim.programs import fail, open_streams, told

    open_streams()
    try:
        check_surroundings()
        from robot.nodes.programs import main
    except Exception as error:
        return fail(*told(error))
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
