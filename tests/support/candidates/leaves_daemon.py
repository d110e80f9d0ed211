"""Right, and its import leaves a process that nobody waits for."""

import os
import signal

if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.pause()
    os._exit(0)
os.wait()


def deform_conv(x, offset, weight, mask, bias, **windows):
    return x
