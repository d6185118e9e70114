"""DualGMN: message passing on channels that transform like the neurons, and inversely."""
