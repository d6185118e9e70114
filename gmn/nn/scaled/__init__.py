"""ScaleGMN: functions that commute with the scales of neurons."""
