// The engine for one instruction set; the flags come from setup.py.
#include "engine.h"
