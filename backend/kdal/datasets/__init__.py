"""Folders of labelled images as tasks of Label Studio, and back."""
