"""Tasks whose documents are learnt as they are."""
