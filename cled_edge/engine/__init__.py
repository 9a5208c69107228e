"""TensorRT engines: built from a bundle's graphs on the device that runs them, kept with all that they depend on."""
