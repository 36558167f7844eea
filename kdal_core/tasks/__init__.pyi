from .box import Box
from .boxes import BoxTask
from .classification import ClassificationTask
from .lane import Lane
from .lanes import LaneTask
from .learning_loss import LearningLossTask
from .registry import get_task, task_kinds
from .task import FirstLook, Task

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
