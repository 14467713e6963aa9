"""`python -m robot.nodes NODE [--ros-args ...]`: what launch files start."""

import sys

from robot.nodes.programs import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
