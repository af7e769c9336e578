from shop.settings import *

DEBUG = False
