from probe.settings import *

STAGE = "staging"
