"""Tests of the application without a screen."""
