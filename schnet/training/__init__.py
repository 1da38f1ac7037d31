"""Gradient steps: objective, schedule, state, recorder, and the loop that ties them."""
