"""What a project's owner may decide."""

from kdal.policy.model import Policy
from kdal.policy.rules import OF_STRATEGY, SCORED, usable_strategies

__all__ = ["OF_STRATEGY", "SCORED", "Policy", "usable_strategies"]
