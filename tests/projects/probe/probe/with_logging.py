from probe.settings import *

LOGGING = {
    "version": 1,
    "formatters": {"own": {"format": "OURS %(name)s %(status)s %(path)s"}},
    "handlers": {"own": {"class": "logging.StreamHandler", "formatter": "own"}},
    "loggers": {"djasgi.access": {"handlers": ["own"], "level": "INFO"}},
}
