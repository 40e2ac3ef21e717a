"""Statistics, plots and tables of finished numbers."""
