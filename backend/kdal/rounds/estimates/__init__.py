"""What a project's owner may know of it, from labels: how good, when to stop, what it saves, what looks wrong."""

from kdal.rounds.estimates.reading import estimates_of, project_estimates

__all__ = ["estimates_of", "project_estimates"]
