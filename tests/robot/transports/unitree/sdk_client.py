"""What a user of unitree_sdk2_python writes to stand a robot up and lay it down; a process of its own.

python sdk_client.py DOMAIN: releases the robot's own mode, stands up, holds, lies down; prints what it saw.
"""

import json
import sys
import time

from unitree_sdk2py.comm.motion_switcher.motion_switcher_client import MotionSwitcherClient
from unitree_sdk2py.core.channel import ChannelFactoryInitialize, ChannelPublisher, ChannelSubscriber
from unitree_sdk2py.idl.default import unitree_go_msg_dds__LowCmd_
from unitree_sdk2py.idl.unitree_go.msg.dds_ import LowCmd_, LowState_
from unitree_sdk2py.utils.crc import CRC

LIES, STANDS = (0.0, 1.36, -2.65), (0.0, 0.67, -1.3)
STATES: list[LowState_] = []
CHECK = CRC()


def main() -> None:
    ChannelFactoryInitialize(int(sys.argv[1]), "lo")
    subscriber = ChannelSubscriber("rt/lowstate", LowState_)
    subscriber.Init(lambda state: STATES.append(state), 10)
    publisher = ChannelPublisher("rt/lowcmd", LowCmd_)
    publisher.Init()
    switcher = MotionSwitcherClient()
    switcher.SetTimeout(20.0)
    switcher.Init()
    modes = []
    while not modes or modes[-1]:
        modes.append(switcher.CheckMode()[1]["name"])
        if modes[-1]:
            switcher.ReleaseMode()
    while not STATES:
        time.sleep(0.01)
    command = unitree_go_msg_dds__LowCmd_()
    command.head[0], command.head[1], command.level_flag = 0xFE, 0xEF, 0xFF
    for motor in command.motor_cmd:
        motor.mode = 0x01
    for goal, seconds in ((LIES, 1.5), (STANDS, 1.5), (STANDS, 1.0), (LIES, 1.5)):
        start = [STATES[-1].motor_state[i].q for i in range(12)]
        begin = time.monotonic()
        while (share := (time.monotonic() - begin) / seconds) < 1:
            for i, motor in enumerate(command.motor_cmd[:12]):
                motor.q = start[i] + min(1.5 * share, 1.0) * (goal[i % 3] - start[i])
                motor.dq, motor.kp, motor.kd, motor.tau = 0.0, 60.0, 5.0, 0.0
            command.crc = CHECK.Crc(command)
            publisher.Write(command)
            time.sleep(0.004)
        print(json.dumps({"goal": goal, "reached": [STATES[-1].motor_state[i].q for i in range(12)]}), flush=True)
    wrong = sum(CHECK.Crc(state) != state.crc for state in STATES[::20])
    ticks = [state.tick for state in STATES]
    grows = all(b > a for a, b in zip(ticks, ticks[1:], strict=False))
    up = STATES[-1].imu_state.accelerometer[2]
    print(json.dumps({"modes": modes, "states": len(STATES), "wrong": wrong, "grows": grows, "up": up}), flush=True)


if __name__ == "__main__":
    main()
