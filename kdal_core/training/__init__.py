"""Training: one loop, one way to infer, checkpoints in safetensors, and the trio S, T, S-KD."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
