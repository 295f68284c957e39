"""What modules and offloader share; also installed as the package posture_edge."""
