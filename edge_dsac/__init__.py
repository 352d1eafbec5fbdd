"""edge_dsac: train, compile, run and fine-tune DSAC-T policies on robots. Start reading at `loop/control.py`."""

__version__ = "0.1.0"
