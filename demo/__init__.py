"""The main job on one machine: make demo."""
