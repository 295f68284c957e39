"""The analyzer: takes a stream's images, finds the pose, writes the annotated picture and the row."""
