"""Building TensorRT engines: in a child process, tried before they are kept."""
