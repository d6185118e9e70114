"""Published zoos: small replicas in the exact layout come in with nothing changed or lost."""
