"""What runs on the event loop, told from the project's own source without running it.

Names are followed through imports and calls inside the project. What cannot be resolved
is left out: a call that might be meant is none.
"""
