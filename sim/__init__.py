"""The robots in simulation. Importing it registers the Gymnasium environments where Gymnasium is installed."""

import ctypes.util
import os

# MuJoCo chooses its way of drawing when it is imported, so this comes first: EGL draws without a screen, OSMesa without a driver.
if "MUJOCO_GL" not in os.environ and not os.environ.get("DISPLAY"):
    os.environ["MUJOCO_GL"] = "egl" if ctypes.util.find_library("EGL") else "osmesa"

try:
    from sim.env import register
except ImportError:  # a robot has neither gymnasium nor mujoco; nothing of it needs them
    pass
else:
    register()
