"""The flags of both stages, a file for each group of ``--help``: every default is born here, with its reason."""
