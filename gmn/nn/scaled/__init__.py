"""ScaleGMN: message passing that commutes with the scales of neurons."""
