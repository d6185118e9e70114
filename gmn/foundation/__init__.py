"""What the other packages stand on: checked arguments, output folders, schemas, consent.

Nothing here is offered by the library.
"""
