"""Lets tests import each other and the product the same way everywhere."""
