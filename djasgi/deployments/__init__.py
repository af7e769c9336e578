"""The files that say how a project is launched: found, read, never run."""
