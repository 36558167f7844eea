"""Evaluation of trained models: how sure they may be, whether one is worse than another, what is still to be gained."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
