"""The robots in simulation. Importing it registers the Gymnasium environments where Gymnasium is installed."""

try:
    from sim.env import register
except ImportError:  # a robot has neither gymnasium nor mujoco; nothing of it needs them
    pass
else:
    register()
