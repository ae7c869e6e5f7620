"""Recipes and settings, found from a wheel as sonic_ms.configs."""
