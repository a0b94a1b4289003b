"""What the dataset's screens draw: rows token by token, lengths, findings, and the pickers of a hub dataset."""
