from .box import Box
from .boxes import BoxTask
from .classification import ClassificationTask
from .lane import Lane
from .lanes import LaneTask
from .learning_loss import LearningLossTask
from .registry import get_task, task_kinds
from .task import ColdStartImages, FirstLook, Task, TaskDefaults, WithDefaults

__all__ = [
    "Box",
    "BoxTask",
    "ClassificationTask",
    "ColdStartImages",
    "FirstLook",
    "Lane",
    "LaneTask",
    "LearningLossTask",
    "Task",
    "TaskDefaults",
    "WithDefaults",
    "get_task",
    "task_kinds",
]
