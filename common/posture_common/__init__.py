"""What the analyzer, the publisher and the offloader share: settings, the MQTT connection, the service around them."""
