"""What happened amid training, and what follows from it: metrics beside the main table, files and a picture."""
