"""How fast an export is: measured beside other ways to get the same rows, over a loopback API."""
