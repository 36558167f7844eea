"""Evaluation of trained models: how sure they may be, and whether one is worse than another beyond chance."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
