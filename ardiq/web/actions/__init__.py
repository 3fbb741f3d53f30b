"""What people do: one module for what is changed, each function for one button.

It takes the request and its form, notes in `answers` what came of each id as soon as it is known, and returns what
people are told.
"""
