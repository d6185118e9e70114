"""What can be done with finished zoos: merging, filtering, verifying, exporting, describing."""
