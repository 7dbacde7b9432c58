"""Executors: who measures the masks, and how nothing is measured twice."""
