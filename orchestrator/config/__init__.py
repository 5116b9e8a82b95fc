"""What a user may ask for, and reading it from YAML."""

from typing import Literal

# what is run where no recipe is named; here, since the command line needs the name before it needs any of the rest
DEFAULT_RECIPE = "embedded"

# which states stay; as above
Keep = Literal["all", "last", "none"]
