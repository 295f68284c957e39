"""Decides on which node each stream is analysed, and says why."""
