"""The process that trains and exports: the only home of torch and Unsloth."""
