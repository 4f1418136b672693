"""How much memory a child process used. `ru_maxrss` would not do: a child inherits its parent's peak."""

PEAK = """
def peak_megabytes():
    import re
    status = open("/proc/self/status").read()
    return int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) // 1024
"""
"""Source of a function for the child."""
