"""Operations on finished zoos: merging, filtering, verifying, repairing, exporting, describing."""
