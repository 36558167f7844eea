"""The one tree of errors. Each message says what is wrong and what to do about it."""

from __future__ import annotations


class KdalError(Exception):
    """Root of every error that kdal raises on purpose."""


class ConfigError(KdalError):
    """A setting, a policy or a labelling config that kdal cannot work with."""


class LabelFormatError(KdalError):
    """A label that cannot be read: the message names the task and the region."""


class AssetError(KdalError):
    """An image, checkpoint or manifest that is missing, unreadable or too large."""


class BudgetExceeded(KdalError):
    """A black-box teacher would have been asked more often than its budget allows."""


class TeacherError(KdalError):
    """A black-box teacher that gave no usable answer.

    Attributes:
        charged: whether the images may have reached the teacher. Only when it is certain that they did not, the
            query does not count in the budget.
        worth_repeating: whether the same query may well succeed if it is asked again.
    """

    def __init__(self, message: str, *, charged: bool = True, worth_repeating: bool = False) -> None:
        super().__init__(message)
        self.charged, self.worth_repeating = charged, worth_repeating
