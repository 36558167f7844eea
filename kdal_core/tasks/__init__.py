"""What is labelled, one file for each kind of task, behind the one `Task` protocol."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
