"""What the integration tests and the bench share: brokers, databases, programs, cameras."""
