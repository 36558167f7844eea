"""A project's black-box teacher: who may be asked, what has been asked, and the student that learns from it."""
