"""Parts of what journals hold, and of what follows from them."""
