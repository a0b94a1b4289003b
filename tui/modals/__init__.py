"""Questions and cards over a screen."""
