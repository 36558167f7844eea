"""Projects that kdal is shown on: images with their true labels, and nothing to download."""
