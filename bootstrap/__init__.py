"""Makes `.venv`: finds a Python, installs what the project needs, repairs what is broken. Standard library only."""
