"""Tests claimed symmetries on the module itself: experiment, certificate, completeness."""
