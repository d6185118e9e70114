"""DualGMN: channels that transform like the neurons, and inversely."""
