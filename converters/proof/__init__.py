"""Claims held against the module itself: the experiment, the certificate, what is missing."""
