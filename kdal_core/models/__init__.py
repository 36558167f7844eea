"""The networks, by name: small ones of our own for small images, torchvision's for the rest; and two wrappers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
