"""The parts of the model screen: the lists to choose from, and the details of what is highlighted."""
