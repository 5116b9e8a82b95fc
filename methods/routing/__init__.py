"""An adapter for every task, and for every input a choice among them."""
