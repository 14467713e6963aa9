"""`barkour onboard`: the control loop on the transport that was asked for."""

from robot.options import OnboardOptions
from robot.results import LoopReport, OnboardReport


def onboard(options: OnboardOptions) -> OnboardReport | LoopReport:
    """Runs the loop to its end; see `robot.nodes.onboard` and `robot.transports.simulation`."""
    if options.transport == "ros2":
        from robot.nodes import start

        return start.onboard(options)
    if options.transport == "unitree":
        from robot.transports.unitree.onboard import onboard_unitree

        return onboard_unitree(options)
    from robot.transports.simulation import onboard_in_simulation

    return onboard_in_simulation(options)
