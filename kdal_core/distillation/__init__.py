"""Distillation: soft targets and their loss; black-box teachers, their query ledger; Active Mixup and its rivals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
