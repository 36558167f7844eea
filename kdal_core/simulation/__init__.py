"""A whole labelling campaign on a labelled data set with a simulated annotator: the benchmark of all the rest."""

from kdal_core.simulation.campaign import Arm, Campaign, load_campaign, shipped_campaigns
from kdal_core.simulation.report.pages import write_report
from kdal_core.simulation.results import Point, Results, Run
from kdal_core.simulation.simulate import Progress, collect, simulate

__all__ = [
    "Arm",
    "Campaign",
    "Point",
    "Progress",
    "Results",
    "Run",
    "collect",
    "load_campaign",
    "shipped_campaigns",
    "simulate",
    "write_report",
]
