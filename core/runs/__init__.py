"""Run folders: their files, their events, their state, and the processes that write them."""
