"""What every value of a program ranges over, and how it transforms when weights move."""
