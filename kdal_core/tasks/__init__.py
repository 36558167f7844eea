"""What is labelled, one file for each kind of task, behind the one `Task` protocol."""

from kdal_core.tasks.box import Box
from kdal_core.tasks.boxes import BoxTask
from kdal_core.tasks.classification import ClassificationTask
from kdal_core.tasks.lane import Lane
from kdal_core.tasks.lanes import LaneTask
from kdal_core.tasks.learning_loss import LearningLossTask
from kdal_core.tasks.registry import get_task, task_kinds
from kdal_core.tasks.task import FirstLook, Task

__all__ = [
    "Box",
    "BoxTask",
    "ClassificationTask",
    "FirstLook",
    "Lane",
    "LaneTask",
    "LearningLossTask",
    "Task",
    "get_task",
    "task_kinds",
]
