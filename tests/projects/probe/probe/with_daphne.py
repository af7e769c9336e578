from probe.settings import *

# Its app installs a Twisted reactor, under whichever server.
INSTALLED_APPS = ["daphne"]
