"""Studies: the paper's tables in small on free data, and by one command on the licensed datasets."""
