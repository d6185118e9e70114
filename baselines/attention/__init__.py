"""Neural functional networks of attention: symmetries of heads."""
