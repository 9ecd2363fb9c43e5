"""ScaiMind's gateway: REST and Server-Sent Events in front of MindCoordinator."""

__version__ = "0.1.0"
