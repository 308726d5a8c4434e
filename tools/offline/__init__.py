"""Everything that a machine without a network needs: which wheels, where from, and the script that installs them."""
