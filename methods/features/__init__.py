"""Methods that keep statistics of classes in the space of features, and answer by them or align a head with them."""
