"""ScaiMind's gateway: REST and Server-Sent Events in front of MindCoordinator."""
