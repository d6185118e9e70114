"""Training of many small networks, and how their hyper-parameters are drawn."""
