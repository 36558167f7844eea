"""Label Studio: its API, connecting a project, the order of its queue, the formats of its labels."""
