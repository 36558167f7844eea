"""Road scenes with their lane markings, drawn by arithmetic: what a camera behind the windscreen sees.

Units are metres and pixels. The world's x points right, y up, z ahead, from the road below the camera. An image's
x and y point right and down from its upper left corner; the middle of the first pixel is (0.5, 0.5).
"""

from kdal.demo.examples.road_scenes.scene import SIZE, LaneMarking, RoadScene, render
from kdal.demo.examples.road_scenes.world import KINDS

__all__ = ["KINDS", "SIZE", "LaneMarking", "RoadScene", "render"]
