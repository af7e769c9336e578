from bookwyrm.settings import *

QUEUE = True
