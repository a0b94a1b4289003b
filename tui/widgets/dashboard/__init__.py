"""The parts of the dashboard: what a run has told so far, and the panes that show it."""
