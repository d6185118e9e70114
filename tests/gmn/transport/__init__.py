"""Tests of gmn.transport."""
