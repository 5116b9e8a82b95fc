"""What came out: results, tables, files, plots, and the screen while it runs."""
