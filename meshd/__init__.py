"""Identical machines with one cloud-config turn themselves into a k3s cluster."""

__version__ = "0.1.0"
